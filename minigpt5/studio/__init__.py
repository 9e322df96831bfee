"""The Studio: pages in a browser to chat with a model on, made by `app`; all that they show the engine does."""
