"""The page in the browser: a trained run, tried on photographs. Gradio is the extra `demo`.

`answer` turns a photograph into what the page shows, `examples` finds some, `page` lays the page out, `serve` starts
it behind a `gate`; `viewer.html`, `viewer.css` and `viewer.js` are the picture with its legend, which Gradio has not.
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, which any module here may do
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
