"""The tables of accounts, as numbered migrations: appended, never edited. Knows nothing of what fills them."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE accounts (
        user_id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        password TEXT NOT NULL,
        admin INTEGER NOT NULL,
        created_at REAL NOT NULL
    );
    CREATE TABLE sessions (
        token BLOB PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL
    );
    CREATE INDEX sessions_of_user ON sessions (user_id);
    CREATE TABLE api_keys (
        key BLOB PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
        created_at REAL NOT NULL
    );
    CREATE INDEX api_keys_of_user ON api_keys (user_id);
    """,
    """
    CREATE TABLE account_roles (
        user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
        role TEXT NOT NULL,
        PRIMARY KEY (user_id, role)
    );
    INSERT INTO account_roles SELECT user_id, 'admin' FROM accounts WHERE admin;
    ALTER TABLE accounts DROP COLUMN admin;
    ALTER TABLE sessions ADD COLUMN id TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN agent TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN address TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN last_seen REAL NOT NULL DEFAULT 0;
    UPDATE sessions SET id = lower(hex(randomblob(8))), last_seen = created_at;
    CREATE UNIQUE INDEX sessions_by_id ON sessions (id);
    ALTER TABLE api_keys ADD COLUMN id TEXT NOT NULL DEFAULT '';
    ALTER TABLE api_keys ADD COLUMN name TEXT NOT NULL DEFAULT '';
    ALTER TABLE api_keys ADD COLUMN prefix TEXT NOT NULL DEFAULT '';
    ALTER TABLE api_keys ADD COLUMN last_used REAL;
    UPDATE api_keys SET id = lower(hex(randomblob(8)));
    CREATE UNIQUE INDEX api_keys_by_id ON api_keys (id);
    CREATE TABLE account_erasures (
        user_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        removed_at REAL NOT NULL
    );
    CREATE TABLE user_groups (
        name TEXT PRIMARY KEY,
        created_at REAL NOT NULL
    );
    CREATE TABLE user_group_members (
        group_name TEXT NOT NULL REFERENCES user_groups (name) ON DELETE CASCADE,
        user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
        PRIMARY KEY (group_name, user_id)
    );
    CREATE INDEX groups_of_user ON user_group_members (user_id);
    """,
    """
    CREATE TABLE token_usage (
        user_id TEXT NOT NULL,
        day INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        PRIMARY KEY (user_id, day)
    );
    """,
    """
    CREATE TABLE account_identities (
        issuer TEXT NOT NULL,
        subject TEXT NOT NULL,
        user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
        PRIMARY KEY (issuer, subject)
    );
    CREATE INDEX identities_of_user ON account_identities (user_id);
    """,
)
