"""The explorer inside a notebook: a frame, and a link for where no frame is shown.

A notebook is served from another port of the same machine. The frame takes the name by which the
notebook itself was opened, since a browser keeps the cookie of the explorer from other names.
"""

import sys
from html import escape
from typing import final

__all__ = ["Address", "in_notebook"]

HEIGHT = 760  # pixels
SCRIPT = """
(() => {
  const box = document.getElementById("NAME"), own = location.hostname;
  const local = ["localhost", "127.0.0.1"].includes(own);
  const to = local ? "URL".replace("//127.0.0.1:", `//${own}:`) : "URL";
  box.querySelector("a").href = to;
  if (local) box.querySelector("iframe").src = to;
  else box.querySelector("iframe").remove();
})();
"""


def in_notebook() -> bool:
    """Whether a cell of a notebook asks, in a process that shows HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


@final
class Address(str):
    """The first address of an explorer, good once; a notebook shows it as a frame."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        name = f"turnover-{abs(hash(self)):x}"
        script = SCRIPT.replace("NAME", name).replace("URL", escape(self))
        return (
            f'<div id="{name}"><iframe title="turnover explore" width="100%" height="{HEIGHT}" '
            'style="border: 1px solid #888"></iframe><p><a target="_blank" rel="noopener" '
            f'href="{escape(self)}">Open the explorer in a tab of its own</a>. It is served by the '
            "machine on which the notebook computes, and only to that machine.</p>"
            f"<script>{script}</script></div>"
        )
