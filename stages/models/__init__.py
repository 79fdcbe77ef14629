"""Networks, what the frozen body makes of pictures, and the files a model is used with."""
