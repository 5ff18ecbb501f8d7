"""Who may do what: sessions with limit and expiry, accounts with lockout, roles."""

from __future__ import annotations

import re
import secrets
import time

from machine import Machine
from protocol import ROOT, Refusal, Request

OPEN_PATHS = {"/redfish", ROOT, f"{ROOT}/odata", f"{ROOT}/$metadata"}
ROLES = {
    "Administrator": ["Login", "ConfigureManager", "ConfigureUsers", "ConfigureSelf", "ConfigureComponents"],
    "Operator": ["Login", "ConfigureSelf", "ConfigureComponents"],
    "ReadOnly": ["Login", "ConfigureSelf"],
    "None": [],
}
SESSIONS = f"{ROOT}/SessionService/Sessions"


class Access:
    """Checks credentials against the accounts of a machine and keeps its sessions."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.login_fails_until = 0.0

    # ------------------------------------------------------------ accounts

    def login(self, user: str, password: str) -> str:
        """Check a password; returns the account id, counts failures and locks."""
        state, now = self.machine.state, time.monotonic()
        if now < self.login_fails_until:
            raise self.unauthorized()
        found = next((key for key, account in state["accounts"].items() if account["user"] == user and user), None)
        if found is None:
            raise self.unauthorized()
        account, policy = state["accounts"][found], state["account_policy"]
        if account["locked_until"] is not None and now >= account["locked_until"]:
            account.update(locked_until=None, failed_logins=0)
        if not account["enabled"] or account["locked_until"] is not None:
            raise self.unauthorized()
        if account["password"] != password:
            account["failed_logins"] += 1
            if policy["threshold"] and account["failed_logins"] >= policy["threshold"]:
                account["locked_until"] = (
                    now + policy["duration_seconds"] if policy["duration_seconds"] else float(1 << 40)
                )
            raise self.unauthorized()
        account["failed_logins"] = 0
        return found

    @staticmethod
    def unauthorized() -> Refusal:
        """The answer to missing or wrong credentials."""
        return Refusal(401, "NoValidSession", headers={"WWW-Authenticate": 'Basic realm="Redfish"'})

    def authenticate(self, request: Request) -> None:
        """Find out who sent a request and refuse it when nobody may."""
        path = request.path.rstrip("/") or "/"
        if any(re.search(pattern, request.path) for pattern in self.machine.settings["unauthorized_paths"]):
            raise self.unauthorized()
        if path in OPEN_PATHS and request.method in ("GET", "HEAD"):
            return
        if request.method == "POST" and path in (SESSIONS, f"{SESSIONS}/Members"):
            return
        token = request.headers.get("x-auth-token")
        credentials = request.basic_credentials()
        if token:
            self.expire()
            for key, session in self.machine.state["sessions"].items():
                if secrets.compare_digest(session["token"].encode(), token.encode()):
                    request.session, request.account = key, session["account"]
                    self.machine.last_used[key] = time.monotonic()
                    break
            else:
                raise self.unauthorized()
        elif credentials:
            request.account = self.login(*credentials)
        else:
            raise self.unauthorized()
        if request.account not in self.machine.state["accounts"]:
            raise self.unauthorized()
        self._check_privilege(request, path)

    def _check_privilege(self, request: Request, path: str) -> None:
        account = self.machine.state["accounts"][request.account]
        own = path == f"{ROOT}/AccountService/Accounts/{request.account}"
        logout = request.method == "DELETE" and path == f"{SESSIONS}/{request.session}"
        if account["password_change_required"] and not logout and not (own and request.method in ("GET", "PATCH")):
            raise Refusal(403, "PasswordChangeRequired", f"{ROOT}/AccountService/Accounts/{request.account}")
        if request.method in ("GET", "HEAD") or logout or (own and request.method == "PATCH"):
            return
        part = path[len(ROOT) :].split("/")[1] if path.startswith(ROOT + "/") else "UpdateService"
        needed = {
            "AccountService": "ConfigureUsers",
            "Managers": "ConfigureManager",
            "SessionService": "ConfigureManager",
            "EventService": "ConfigureManager",
            "CertificateService": "ConfigureManager",
        }.get(part, "ConfigureComponents")
        if needed not in ROLES.get(account["role"], []):
            raise Refusal(403, "InsufficientPrivilege")

    def claimed(self, request: Request) -> tuple[str | None, str | None]:
        """User and session that a request claims to be of, without checking or counting anything."""
        token, credentials = request.headers.get("x-auth-token"), request.basic_credentials()
        for key, session in self.machine.state["sessions"].items() if token else ():
            if session["token"] == token:
                return session["user"], key
        return (credentials[0], None) if credentials else (None, None)

    # ------------------------------------------------------------ sessions

    def expire(self) -> None:
        """Drop the sessions that were idle for too long."""
        state, now = self.machine.state, time.monotonic()
        for key in [
            k
            for k in state["sessions"]
            if now - self.machine.last_used.setdefault(k, now) > state["session_timeout_seconds"]
        ]:
            with self.machine.transaction():
                del state["sessions"][key]

    def open_session(self, request: Request, user: str, password: str) -> tuple[str, dict]:
        """Create a session, if the limit allows another one."""
        account = self.login(user, password)
        self.expire()
        machine = self.machine
        limit = machine.settings["sessions_limit"] or machine.personality.session_limit
        if len(machine.state["sessions"]) >= limit:
            raise Refusal(503, "SessionLimitExceeded", oem=machine.personality.session_limit_oem)
        key = secrets.token_hex(5)
        session = {
            "user": user,
            "account": account,
            "token": secrets.token_hex(16),
            "created": machine.now(),
            "client": request.peer,
        }
        machine.state["sessions"][key] = session
        machine.last_used[key] = time.monotonic()
        request.account, request.session = account, key
        return key, session
