"""A page to try the exported model. It has an environment of its own: gradio wants other versions than Prefect."""
