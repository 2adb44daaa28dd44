"""The log-in form of the embedded issuer. The pages put theirs in its place (`Identity.form`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "title": "Log in",
        "username": "User name",
        "password": "Password",
        "wrong": "User name or password is not right.",
        "wait": "Too many tries: wait half a minute.",
    },
    "ar": {
        "title": "تسجيل الدخول",
        "username": "اسم المستخدم",
        "password": "كلمة المرور",
        "wrong": "اسم المستخدم أو كلمة المرور غير صحيحة.",
        "wait": "محاولات كثيرة: انتظر نصف دقيقة.",
    },
}


@dataclass(frozen=True)
class LoginForm:
    """What a log-in form shows. It posts `hidden`, `username` and `password` to `action`."""

    action: str
    hidden: Mapping[str, str] = field(default_factory=dict)
    username: str = ""
    error: str = ""
    """`wrong` or `wait`; empty: the first try."""
    lang: str = "en"


def render(request: Request, form: LoginForm, status: int) -> Response:
    """A page without script and style."""
    text = _TEXTS.get(form.lang, _TEXTS["en"])
    hidden = "".join(f'<input type="hidden" name="{escape(n)}" value="{escape(v)}">' for n, v in form.hidden.items())
    told = f'<p role="alert">{escape(text[form.error])}</p>' if form.error in text else ""
    page = (
        f'<!doctype html><html lang="{form.lang}" dir="{"rtl" if form.lang == "ar" else "ltr"}"><head>'
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text['title']} · Sijil</title></head><body><main><h1>{text['title']}</h1>{told}"
        f'<form method="post" action="{escape(form.action)}">{hidden}'
        f'<p><label for="username">{text["username"]}</label> <input id="username" name="username" required autofocus'
        f' autocomplete="username" dir="ltr" value="{escape(form.username)}"></p>'
        f'<p><label for="password">{text["password"]}</label> <input id="password" name="password" type="password"'
        f' required autocomplete="current-password" dir="ltr"></p><p><button>{text["title"]}</button></p>'
        "</form></main></body></html>"
    )
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})
