"""What looks like a secret does not leave; what only resembles one stays readable."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from devsup import masking


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("postgres://user:p@ss@db.local/app?x=1", "postgres://***@db.local/app?x=1"),
        ("API_KEY=abc npm run dev", "API_KEY=*** npm run dev"),
        ("DB_PASS=abc", "DB_PASS=***"),
        ("--token=abc --port=1", "--token=*** --port=1"),
        ("https://host/?access_token=abc&x=1", "https://host/?access_token=***&x=1"),
        ('{"password": "x y", "port": 1}', '{"password": "***", "port": 1}'),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("using ghp_abcdef123456 now", "using ghp_*** now"),
        ("sk-test-123456", "sk-***"),
        ("eyJhbGciOi.eyJzdWIi.sig", "eyJ***"),
        ("postgresql+asyncpg://me:p/a?s#s@db.local/app", "postgresql+asyncpg://***@db.local/app"),
        ("unix://:p/a@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("> authorization: Basic dXNlcjpwYXNz\n", "> authorization: Basic ***\n"),
        ("{'password': 'it\\'s x', 'port': 1}", "{'password': '***', 'port': 1}"),
        ('{"password" : "a\\"b\'c", "port": 1}', '{"password" : "***", "port": 1}'),
        (r'{"msg": "{\"token\":\"abc\",\"port\":1}"}', r'{"msg": "{\"token\":\"***\",\"port\":1}"}'),
        (r'{"msg": "API_KEY=\"a b\" read"}', r'{"msg": "API_KEY=\"***\" read"}'),
        (r'argv ["--token", "a\"b", "x"]', 'argv ["--token", ***, "x"]'),
        (f"npm_{'aB3' * 12} hf_{'aB' * 17} pypi-{'AgEI' * 9}", "npm_*** hf_*** pypi-***"),
    ],
)
def test_a_secret_in_a_text_is_masked(content: str, shown: str) -> None:
    assert masking.text(content) == shown
    assert masking.suspicious(content)


@pytest.mark.parametrize(
    "content",
    [
        "http://localhost:3000 you@example.com",
        "SyntaxError: Unexpected token: foo",
        "compass=north monkey=2",
        "task-force sk-SK",
        "PORT=3000 NODE_ENV=development",
        "node_modules/@scope/package",
        "http://localhost:5173/@vite/client file:///app/node_modules/@scope/index.js",
        "redis://localhost:6379/0 you@example.com unix:///run/a@b.sock postgres:///app?host=/run/a@b",
        "locales/sk-SK.json npm_config_registry npm_lifecycle_event hf_hub_download() pypi-attestations",
        "Basic settings, authorization: basics",
        "SyntaxError: Unexpected token ':', \"secret\" is not defined",
    ],
)
def test_what_is_no_secret_stays(content: str) -> None:
    assert masking.text(content) == content


def test_a_command_is_masked_by_what_its_words_mean() -> None:
    command = [
        "node",
        "--token",
        "abc",
        "--api-key=zz",
        "--port",
        "3000",
        "SECRET=a b",
        "sh",
        "-c",
        "TOKEN=1 npm run dev",
    ]
    assert masking.command(command) == [
        *("node", "--token", "***", "--api-key=***", "--port", "3000", "SECRET=***"),
        *("sh", "-c", "TOKEN=*** npm run dev"),
    ]
    script = "TOKEN=1 npm run dev"
    assert masking.command(["bash", "-lc", script, "-xc", script, "--spec", "TOKEN=1 2"]) == [
        *("bash", "-lc", "TOKEN=*** npm run dev", "-xc", "TOKEN=*** npm run dev", "--spec", "TOKEN=***"),
    ]
    assert masking.value({"command": "node --token abc --port 1"}) == {"command": "node --token *** --port 1"}


def test_the_secrets_of_env_are_masked_wherever_they_turn_up() -> None:
    """The values of ports and modes are no secrets: to mask them would garble every url and path."""
    masking.learn(
        {"DB_PASSWORD": "hunter22", "PORT": "3000", "MODE": "development", "GH": "ghp_abcdef123456"}
    )
    assert masking.text("hunter22 http://localhost:3000 development ghp_abcdef123456") == (
        "*** http://localhost:3000 development ***"
    )


@pytest.mark.parametrize(
    ("secrets", "content", "shown"),
    [
        (["secret", "hunter2secret"], "it says hunter2secret, secret", "it says ***, ***"),
        (["secret", "secrets-of-old"], "secrets-of-old", "***"),
        (["abcdef", "defghi"], "<abcdefghi>", "<***>"),
        (["xyxyxy"], "xyxyxyxy", "***"),
        (["one-line\n  two-line\n"], "two-line", "***"),
    ],
)
def test_no_part_of_a_secret_stays_beside_another(secrets: list[str], content: str, shown: str) -> None:
    for secret in secrets:
        masking.learn({"SECRET": secret})
    assert masking.text(content) == shown


@pytest.mark.parametrize("secret", ['say"friend', "back\\slash", "zwei\nzeilen", "schlüssel", "bell\x07bell"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_secret_that_json_writes_otherwise_is_suspicious_too(secret: str, *, ascii_only: bool) -> None:
    masking.learn({"SECRET": secret})
    answer = {"text": f"it was {secret} again"}
    assert masking.suspicious(json.dumps(answer, ensure_ascii=ascii_only))
    assert masking.value(answer) == {"text": "it was *** again"}


@pytest.mark.parametrize("secret", ["postgres://me:hunter2@db.local/app", "it is hunter2, literally"])
def test_a_cut_leaves_no_half_of_a_secret(secret: str) -> None:
    masking.learn({"SECRET": "it is hunter2, literally"})
    content = f"cannot connect: {secret} is refused"
    for most in range(len(content) + 2):
        shown = masking.text(masking.cut(content, most))
        assert len(shown) <= max(most, len(masking.text(content)))
        assert "hun" not in shown or most > len(content)
    assert masking.cut("12345678", 8) == "12345678"
    assert masking.cut("123456789", 8) == "1234567…"


def test_secrets_can_be_learned_while_others_mask() -> None:
    def learn() -> None:
        for number in range(20_000):
            masking.learn({"SECRET": f"hunter{number:05}"})

    with ThreadPoolExecutor(1) as threads:
        learning = threads.submit(learn)
        while not learning.done():
            assert masking.text("nothing to hide") == "nothing to hide"
            assert not masking.suspicious("nothing to hide")
        learning.result()


def test_what_is_not_suspicious_has_nothing_to_mask() -> None:
    """`suspicious` looks at a whole answer at once: where it says no, nobody looks at the parts."""
    answer = {"command": ["node", "next", "dev"], "url": "http://localhost:3000", "text": "GET / 200"}
    assert not masking.suspicious(json.dumps(answer))
    assert masking.value(answer) == answer


@pytest.mark.parametrize(
    "part",
    [
        *("x", "-", "a.", "token", "token=", "-eyJa.", "--token ", "a://b@", '"token":', "=", "é"),
        *(
            "redis://b",
            "redis://b@",
            'token"\\',
            "token\\",
            'token="\\',
            '--token "',
            "sk-a",
            "npm_a",
            "authorization: ",
        ),
    ],
)
def test_a_minified_line_is_masked_in_no_time(part: str) -> None:
    """Each of them took minutes: every letter of a long word was a place to begin."""
    content = "TOKEN=abcdef https://a:b@c.test sk-live-abcdefgh " + part * (200_000 // len(part))
    began = time.process_time()
    masked = masking.text(content)
    assert time.process_time() - began < 5.0
    assert masked.startswith("TOKEN=*** https://***@c.test sk-*** ")
