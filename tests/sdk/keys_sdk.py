"""Virtual keys with the real SDKs: `python keys_sdk.py BASE_URL GOOD NEAR GONE`.

GOOD may use everything, NEAR this device's models alone, GONE was revoked. Ends
with `N passed`, or with a traceback.
"""

import sys

import anthropic
import ollama
import openai

BASE_URL, GOOD, NEAR, GONE = sys.argv[1:5]
WRONG = "nf_" + "0" * 12 + "_" + "0" * 32
QUESTION = [{"role": "user", "content": "when is breakfast"}]
passed = 0


def with_openai(key):
    client = openai.OpenAI(base_url=BASE_URL + "/v1", api_key=key, max_retries=0)
    return client.chat.completions.create(model="far/m", messages=QUESTION, max_tokens=8)


def with_anthropic(key):
    client = anthropic.Anthropic(base_url=BASE_URL, api_key=key, max_retries=0)
    return client.messages.create(model="far/m", messages=QUESTION, max_tokens=8)


def with_ollama(key):
    client = ollama.Client(host=BASE_URL, headers={"Authorization": f"Bearer {key}"})
    return client.chat(model="far/m", messages=QUESTION)


def fails(ask, key, error, status, words):
    global passed
    try:
        ask(key)
    except error as wrong:
        assert wrong.status_code == status, wrong
        assert words in str(wrong), wrong
        assert key not in str(wrong), "an error repeats the key"
        passed += 1
    else:
        raise AssertionError(f"{ask.__name__} was let in")


for ask, unknown, denied in [
    (with_openai, openai.AuthenticationError, openai.PermissionDeniedError),
    (with_anthropic, anthropic.AuthenticationError, anthropic.PermissionDeniedError),
    (with_ollama, ollama.ResponseError, ollama.ResponseError),
]:
    assert "from afar" in str(ask(GOOD))
    passed += 1
    fails(ask, WRONG, unknown, 401, "not known")
    fails(ask, "unused", unknown, 401, "no key of nearfar")
    fails(ask, GONE, unknown, 401, "revoked")
    fails(ask, NEAR, denied, 403, "may not use")

names = lambda models: sorted(model.id for model in models)
client = openai.OpenAI(base_url=BASE_URL + "/v1", api_key=NEAR)
assert names(client.models.list()) == ["auto", "local/concierge"]
azure = openai.AzureOpenAI(
    base_url=BASE_URL + "/v1", api_key=NEAR, api_version="2024-10-21", max_retries=0
)
assert names(azure.models.list()) == ["auto", "local/concierge"]
client = anthropic.Anthropic(base_url=BASE_URL, api_key=NEAR)
assert "far/m" not in names(client.models.list())
client = ollama.Client(host=BASE_URL, headers={"Authorization": f"Bearer {NEAR}"})
assert "far/m" not in [model.model for model in client.list().models]
passed += 4

print(f"{passed} passed")
