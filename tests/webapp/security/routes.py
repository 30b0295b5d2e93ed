"""Which role each route needs: the one list that a new route must enter."""

PUBLIC, VIEWER, OPERATOR, ADMIN = "public", "viewer", "operator", "admin"

ROUTES = {
    # Open: nothing of the desk's data is behind them
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /static/{version}/{path}": PUBLIC,
    "GET /favicon.ico": PUBLIC,
    "GET /sign-in": PUBLIC,
    "POST /sign-in": PUBLIC,
    "GET /set-up": PUBLIC,
    "POST /set-up": PUBLIC,
    "POST /theme": PUBLIC,
    # One's own account
    "POST /sign-out": VIEWER,
    "GET /account": VIEWER,
    "POST /account/password": VIEWER,
    "POST /people/sessions/{session_id}/end": VIEWER,
    # Administration
    "GET /people": ADMIN,
    "POST /people": ADMIN,
    "POST /people/{user_id}/role": ADMIN,
    "POST /people/{user_id}/disable": ADMIN,
    "POST /people/{user_id}/enable": ADMIN,
    "POST /people/{user_id}/password": ADMIN,
    "GET /tokens": ADMIN,
    "POST /tokens": ADMIN,
    "POST /tokens/{token_id}/revoke": ADMIN,
    "GET /audit": ADMIN,
    "GET /audit/export": ADMIN,
    "GET /settings": ADMIN,
    # Programs
    "GET /metrics": VIEWER,
    "GET /schema": VIEWER,
    "GET /schema/openapi.json": VIEWER,
    "GET /schema/{path}": VIEWER,
    "GET /api/v1/jobs": VIEWER,
    "POST /api/v1/jobs": OPERATOR,
    "GET /api/v1/jobs/{job_id}": VIEWER,
    "PATCH /api/v1/jobs/{job_id}": OPERATOR,
    "DELETE /api/v1/jobs/{job_id}": OPERATOR,
    "POST /api/v1/jobs/{job_id}/cancel": OPERATOR,
    "POST /api/v1/jobs/{job_id}/retry": OPERATOR,
    "GET /api/v1/jobs/{job_id}/logs": VIEWER,
    "POST /api/v1/jobs/bulk": OPERATOR,
    "GET /api/v1/jobs/bulk/{operation_id}": VIEWER,
    "POST /api/v1/jobs/bulk/{operation_id}/stop": OPERATOR,
    "GET /api/v1/job-catalogue": VIEWER,
    "GET /api/v1/job-catalogue/{name}": VIEWER,
    "PATCH /api/v1/job-catalogue/{name}": OPERATOR,
    "POST /api/v1/job-catalogue/{name}/pause": OPERATOR,
    "POST /api/v1/job-catalogue/{name}/resume": OPERATOR,
    "GET /api/v1/queues": VIEWER,
    "PATCH /api/v1/queues/{name}": OPERATOR,
    "POST /api/v1/queues/{name}/pause": OPERATOR,
    "POST /api/v1/queues/{name}/resume": OPERATOR,
    "GET /api/v1/workers": VIEWER,
    "GET /api/v1/tokens": ADMIN,
    "POST /api/v1/tokens": ADMIN,
    "DELETE /api/v1/tokens/{token_id}": ADMIN,
    "POST /api/v1/stream/ticket": VIEWER,
}

SOCKETS = {
    "/live": VIEWER,
    "/api/v1/stream": VIEWER,
}
"""WebSockets are open to the router: each tells by its close code why it lets nobody in."""
