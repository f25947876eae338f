"""A model behind HTTP: requests in OpenAI's form, and a page to try it on."""
