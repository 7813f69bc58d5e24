"""A chat model behind an OpenAI-compatible endpoint, for what a language model helps with.

Rephrasing questions into queries uses it; nothing else in the package needs one.
"""

import os

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

KEY_VARIABLE = "OPENAI_API_KEY"


class EndpointError(ValueError):
    """The endpoint did not answer as it should."""


class Endpoint:
    """Asks one model. Args: url, up to and with /v1; model, its name; the key comes from `OPENAI_API_KEY`."""

    def __init__(self, url: str, model: str, *, timeout_s: float = 60):
        self.url, self.model = url, model
        self._client = InferenceClient(
            base_url=url, api_key=os.environ.get(KEY_VARIABLE) or "none", timeout=timeout_s
        )

    def ask(self, prompt: str, *, max_tokens: int = 128) -> str:
        """One answer, decoded greedily. Raises: EndpointError."""
        try:
            out = self._client.chat_completion(
                [{"role": "user", "content": prompt}], model=self.model, max_tokens=max_tokens, temperature=0
            )
        except (HfHubHTTPError, InferenceTimeoutError, OSError) as error:
            raise EndpointError(f"{self.url} ({self.model}): {str(error).splitlines()[0]}") from error
        text = out.choices[0].message.content if out.choices else None
        if not text:
            raise EndpointError(f"{self.url} ({self.model}): an empty answer")
        return text.strip()
