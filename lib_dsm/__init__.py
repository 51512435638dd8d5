"""DSM: datasets, embeddings, hypernetworks and LoRAs for Stable Diffusion, made in the browser.

Importing this package loads nothing heavy: neither torch nor onnxruntime nor gradio.
"""

__version__ = "0.1.0"
