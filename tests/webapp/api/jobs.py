"""Jobs that the API's tests ask for; none of them is ever run here."""

from worker import Secret, job


@job(name="add", queue="sums")
async def add(a: int, b: int = 1) -> dict[str, int]:
    """Adds two numbers."""
    return {"sum": a + b}


@job(name="send_email", queue="mail", retry=2, timeout=30)
async def send_email(to: str, key: Secret[str] | None = None) -> None:
    """Sends one message."""
