"""The page of `mage serve`: models in a browser, on Gradio (extra `web`)."""
