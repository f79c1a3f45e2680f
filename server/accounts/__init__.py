"""Who may come in and what each may do: accounts, roles, groups, sessions, keys, signing in.

Knows nothing of HTTP, chats or files.
"""

from server.accounts.accounts import SESSION_DAYS, Accounts
from server.accounts.audit import COMMAND_LINE, Action, AuditLog, Entry
from server.accounts.audit import MIGRATIONS as AUDIT_MIGRATIONS
from server.accounts.groups import Group, Groups
from server.accounts.identities import Identities
from server.accounts.openid import OpenIdProvider, PendingLogin
from server.accounts.passwords import MAX_PASSWORD, MIN_PASSWORD, PasswordWorkers
from server.accounts.permissions import GRANTS, Permission, Role, roles_with
from server.accounts.quotas import Quotas
from server.accounts.records import MAX_NAME, Account, ApiKey, Credential, Login, OpenSession, Origin, Session
from server.accounts.schema import MIGRATIONS as ACCOUNT_MIGRATIONS
from server.accounts.sign_in import SignIn

__all__ = [
    "ACCOUNT_MIGRATIONS",
    "AUDIT_MIGRATIONS",
    "COMMAND_LINE",
    "GRANTS",
    "MAX_NAME",
    "MAX_PASSWORD",
    "MIN_PASSWORD",
    "SESSION_DAYS",
    "Account",
    "Accounts",
    "Action",
    "ApiKey",
    "AuditLog",
    "Credential",
    "Entry",
    "Group",
    "Groups",
    "Identities",
    "Login",
    "OpenIdProvider",
    "OpenSession",
    "Origin",
    "PasswordWorkers",
    "PendingLogin",
    "Permission",
    "Quotas",
    "Role",
    "Session",
    "SignIn",
    "roles_with",
]
