"""A chat model behind an OpenAI-compatible endpoint, for what a language model helps with.

Rephrasing questions into queries and judging answers use it; nothing else in the package needs one.
"""

import os

KEY_VARIABLE = "OPENAI_API_KEY"


class EndpointError(ValueError):
    """The endpoint did not answer as it should."""


class Endpoint:
    """Asks one model.

    Args:
        url: up to and with /v1.
        model: its name.
        api_key: None is the variable `OPENAI_API_KEY`.
        timeout_s: for one answer.
    """

    def __init__(self, url: str, model: str, *, api_key: str | None = None, timeout_s: float = 60):
        from huggingface_hub import InferenceClient

        self.url, self.model = url, model
        key = api_key or os.environ.get(KEY_VARIABLE) or "none"
        self._client = InferenceClient(base_url=url, api_key=key, timeout=timeout_s)

    def ask(self, prompt: str, *, max_tokens: int = 128) -> str:
        """Ask for one answer, decoded greedily.

        Raises:
            EndpointError: there is none.
        """
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError
        from huggingface_hub.utils import httpx

        try:
            out = self._client.chat_completion(
                [{"role": "user", "content": prompt}], model=self.model, max_tokens=max_tokens, temperature=0
            )
        except (HfHubHTTPError, httpx.HTTPError, InferenceTimeoutError, OSError, ValueError) as error:
            # ValueError: what came back is no answer of a chat model
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise EndpointError(f"{self.url} ({self.model}): {reason}") from error
        text = out.choices[0].message.content if out.choices else None
        if not text:
            raise EndpointError(f"{self.url} ({self.model}): an empty answer")
        return text.strip()
