"""Models and data of Hugging Face as tasks."""
