"""
What executes the blocks of code on each page: a row for each language, with the number of blocks.

A new block needs a test; then the number here is changed.
"""

from __future__ import annotations

#: Checked command by command.
SHELL = "tests/docs/test_shell_blocks.py"
#: Parsed, and compared with what the code has.
DATA = "tests/docs/test_data_blocks.py"
#: The diagrams are drawn in a browser.
SITE = "tests/docs/test_site.py"
TRANSCRIPTS = "tests/docs/test_transcripts.py"
#: And the files that lie beside the pages.
DEPLOYMENT = "tests/docs/test_deployment_files.py"
SHORT = "tests/docs/test_short_pages.py"
GROUPS = "tests/docs/test_groups_snippets.py"
START = "tests/test_start_page.py"
CHINESE = "tests/docs/test_chinese_pages.py"
CLIENT = "tests/client/test_client_page.py"
HOOKS = "tests/client/test_client_hooks.py"
ROOMS = "tests/docs/test_rooms_in_chromium.py"

# Pages, languages, and pairs of a test's file and the number of blocks that it executes.
EXECUTED: dict[str, dict[str, dict[str, int]]] = {
    "CONTRIBUTING.md": {"": {SHELL: 5}},
    "README.md": {"": {SHELL: 1}, "console": {SHELL: 1}, "python": {SHORT: 1}},
    "bench/README.md": {"": {SHELL: 1}},
    "docs/architecture.md": {"mermaid": {SITE: 3}},
    "docs/async.md": {"python": {"tests/docs/test_async_page.py": 5}},
    "docs/channels-layer.md": {"": {SHELL: 1}, "python": {GROUPS: 3}},
    "docs/channels.md": {
        "diff": {"tests/servers/test_channels_page.py": 4},
        "python": {SHORT: 5},
    },
    "docs/client.md": {
        "": {CLIENT: 1},
        "html": {CLIENT: 3},
        "js": {CLIENT: 6},
        "python": {CLIENT: 4},
        "ts": {CLIENT: 1},
    },
    "docs/commands.md": {"": {TRANSCRIPTS: 2}},
    "docs/connect.md": {"python": {"tests/connect/test_connect_page.py": 7}},
    "docs/deployment.md": {
        "": {SHELL: 2, DATA: 1, "tests/proxies/test_forwarded.py": 1},
        "apache": {"tests/proxies/test_forwarded.py": 1},
        "ini": {DATA: 1},
        "nginx": {"tests/proxies/test_forwarded.py": 1},
        "python": {SHORT: 1},
    },
    "docs/deploys.md": {"mermaid": {SITE: 1}, "python": {SHORT: 2}},
    "docs/deployment/containers.md": {"python": {DEPLOYMENT: 1}},
    "docs/deployment/routers.md": {"": {DEPLOYMENT: 1}},
    "docs/deployment/systemd.md": {"": {DEPLOYMENT: 1}, "python": {DEPLOYMENT: 1}},
    "docs/examples.md": {"console": {SHELL: 1}},
    "docs/fallback.md": {"js": {DATA: 1}, "json": {DATA: 2}, "python": {SHORT: 1}},
    "docs/fastapi.md": {
        "console": {"tests/servers/test_fastapi_page.py": 3},
        "python": {"tests/servers/test_fastapi_page.py": 3},
    },
    "docs/groups.md": {
        "": {"tests/groups/test_presence_servers.py": 1},
        "html": {GROUPS: 1, "tests/groups/test_docs_groups.py": 1},
        "python": {GROUPS: 9, "tests/groups/test_docs_groups.py": 5},
    },
    "docs/handlers.md": {"python": {SHORT: 3}},
    "docs/index.md": {"console": {SHELL: 1}, "python": {SHORT: 1}},
    "docs/logging.md": {"python": {SHORT: 1, "tests/unit/test_records.py": 1}},
    "docs/migration.md": {"console": {SHELL: 1}},
    "docs/operations.md": {
        "": {DATA: 1},
        "python": {
            SHORT: 5,
            "tests/operations/sentry_program.py": 2,
            "tests/unit/test_tracing.py": 1,
        },
        "yaml": {DATA: 1},
    },
    "docs/platforms.md": {"console": {SHELL: 1}},
    "docs/presence.md": {
        "html": {"tests/groups/test_pages_in_chromium.py": 1},
        "json": {DATA: 1},
        "python": {"tests/groups/test_presence_page.py": 3},
    },
    "docs/recipes.md": {
        "": {SHELL: 2},
        "html": {"tests/servers/test_recipes.py": 1},
        "python": {SHORT: 2, "tests/servers/test_recipes.py": 2},
    },
    "docs/recovery.md": {
        "": {"tests/groups/test_rights.py": 1},
        "html": {"tests/groups/test_pages_in_chromium.py": 1},
        "json": {DATA: 1},
        "python": {GROUPS: 1, "tests/groups/test_recovery_page.py": 3},
    },
    "docs/rooms.md": {
        "html": {ROOMS: 1},
        "js": {ROOMS: 7},
        "json": {"tests/docs/test_rooms_page.py": 1},
        "python": {"tests/docs/test_rooms_page.py": 9, ROOMS: 2},
        "ts": {HOOKS: 1},
        "tsx": {HOOKS: 1},
        "vue": {HOOKS: 1},
    },
    "docs/scaling.md": {"": {SHELL: 2}},
    "docs/servers/asgi.md": {"console": {SHELL: 1}, "python": {SHORT: 3}},
    "docs/servers/uwsgi.md": {"": {SHELL: 1}, "nginx": {DATA: 1}},
    "docs/servers/waitress.md": {"": {SHELL: 1}},
    "docs/settings.md": {"python": {"tests/docs/test_settings_page.py": 5}},
    "docs/signals.md": {"python": {SHORT: 1}},
    "docs/start.md": {"console": {SHELL: 6}, "html": {START: 1}, "python": {START: 4}},
    "docs/streaming.md": {"python": {"tests/docs/test_streaming_page.py": 3}},
    "docs/tenants.md": {
        "python": {
            "tests/docs/test_tenants_page.py": 3,
            "tests/tenancy/test_django_tenants.py": 1,
        }
    },
    "docs/testing.md": {"python": {"tests/test_sample_project.py": 13}},
    "docs/tokens.md": {"python": {"tests/docs/test_tokens_page.py": 8}},
    "docs/troubleshooting.md": {"console": {SHELL: 1}},
    "docs/views.md": {"python": {"tests/docs/test_views_page.py": 18}},
    "docs/write_a_client.md": {
        "mermaid": {SITE: 1},
        "python": {"tests/client/test_client_live.py": 2},
    },
    "docs/zh/async.md": {"python": {CHINESE: 5}},
    "docs/zh/client.md": {
        "": {CHINESE: 1},
        "html": {CHINESE: 3},
        "js": {CHINESE: 6},
        "python": {CHINESE: 4},
        "ts": {CHINESE: 1},
    },
    "docs/zh/deployment.md": {
        "": {CHINESE: 4},
        "apache": {CHINESE: 1},
        "ini": {CHINESE: 1},
        "nginx": {CHINESE: 1},
        "python": {CHINESE: 1},
    },
    "docs/zh/deploys.md": {"mermaid": {SITE: 1}, "python": {CHINESE: 2}},
    "docs/zh/groups.md": {"": {CHINESE: 1}, "html": {CHINESE: 2}, "python": {CHINESE: 14}},
    "docs/zh/index.md": {"": {CHINESE: 1}, "console": {CHINESE: 1}, "python": {CHINESE: 1}},
    "docs/zh/migration.md": {"console": {CHINESE: 1}},
    "docs/zh/presence.md": {"html": {CHINESE: 1}, "json": {CHINESE: 1}, "python": {CHINESE: 3}},
    "docs/zh/recipes.md": {"": {CHINESE: 2}, "html": {CHINESE: 1}, "python": {CHINESE: 4}},
    "docs/zh/recovery.md": {
        "": {CHINESE: 1},
        "html": {CHINESE: 1},
        "json": {CHINESE: 1},
        "python": {CHINESE: 4},
    },
    "docs/zh/rooms.md": {
        "html": {CHINESE: 1},
        "js": {CHINESE: 7},
        "json": {CHINESE: 1},
        "python": {CHINESE: 11},
        "ts": {CHINESE: 1},
        "tsx": {CHINESE: 1},
        "vue": {CHINESE: 1},
    },
    "docs/zh/settings.md": {"python": {CHINESE: 5}},
    "docs/zh/start.md": {"console": {CHINESE: 6}, "html": {CHINESE: 1}, "python": {CHINESE: 4}},
    "docs/zh/testing.md": {"python": {CHINESE: 13}},
    "docs/zh/troubleshooting.md": {"console": {CHINESE: 1}},
    "docs/zh/views.md": {"python": {CHINESE: 18}},
    "examples/answers/README.md": {"console": {SHELL: 1}},
    "examples/bell/README.md": {"console": {SHELL: 1}},
    "examples/board/README.md": {"console": {SHELL: 1}},
    "examples/chat/README.md": {"": {SHELL: 1}, "console": {SHELL: 1}, "python": {SHORT: 1}},
    "examples/dashboard/README.md": {"console": {SHELL: 1}},
    "examples/fastapi_beside/README.md": {"console": {SHELL: 1}},
    "examples/kanban/README.md": {"console": {SHELL: 1}},
    "examples/moved/README.md": {"console": {SHELL: 1}},
    "examples/recipes/README.md": {"console": {SHELL: 1}},
    "examples/task/README.md": {"console": {SHELL: 1}},
    "examples/tutorials/README.md": {"console": {SHELL: 1}},
    "fuzz/README.md": {"": {SHELL: 2}},
    "tests/README.md": {"": {SHELL: 3}},
}
