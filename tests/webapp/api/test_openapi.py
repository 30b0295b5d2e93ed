"""/schema describes every route of the API, with examples that fit what it says."""

import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.webapp.api.conftest import Client

ERRORS = ("401", "403")


@pytest.fixture
async def document(http: httpx.AsyncClient, viewer: Client) -> dict[str, Any]:
    answer = await viewer.raw("GET", "/!/schema/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def resolved(schema: Any, document: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}


def test_it_is_openapi_3_1_of_the_api_alone(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert all(path.startswith("/api/v1/") for path in document["paths"])
    assert {
        "/api/v1/jobs",
        "/api/v1/jobs/{job_id}/retry",
        "/api/v1/jobs/bulk",
        "/api/v1/queues/{name}/pause",
    } <= set(document["paths"])


def test_every_route_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if "/stream" in name:
            continue
        assert operation["summary"], name
        assert operation["description"], name
        assert set(ERRORS) <= operation["responses"].keys(), name
        for error in ERRORS:
            assert "application/problem+json" in operation["responses"][error]["content"], name


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    looked_at = 0
    for name, operation in operations(document):
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for media in (media for part in parts for media in part.get("content", {}).values()):
            schema = resolved(media["schema"], document)
            for example in media.get("examples", {}).values():
                looked_at += 1
                problems = [
                    error.message for error in Draft202012Validator(schema).iter_errors(example["value"])
                ]
                assert not problems, (name, problems)
    assert looked_at > 60


def test_the_list_names_its_parameters_and_their_limits(document: dict[str, Any]) -> None:
    parameters = {p["name"]: p for p in document["paths"]["/api/v1/jobs"]["get"]["parameters"]}
    assert parameters.keys() == {"status", "job_name", "queue", "q", "sort", "limit", "cursor"}
    assert (parameters["limit"]["schema"]["minimum"], parameters["limit"]["schema"]["maximum"]) == (1, 200)
    assert "failed" in parameters["status"]["schema"]["items"]["enum"]
    assert re.search("1 to 200", parameters["limit"]["description"])


async def test_real_answers_fit_the_document(operator: Client, document: dict[str, Any]) -> None:
    job = await operator.run("send_email", {"to": "a@b.c"}, tags=["x"])
    answers = {
        ("/api/v1/jobs/{job_id}", "get", "200"): (await operator.call("GET", f"/jobs/{job['job_id']}"))[1],
        ("/api/v1/jobs", "get", "200"): (await operator.call("GET", "/jobs"))[1],
        ("/api/v1/jobs", "post", "202"): job,
        ("/api/v1/job-catalogue", "get", "200"): (await operator.call("GET", "/job-catalogue"))[1],
        ("/api/v1/queues", "get", "200"): (await operator.call("GET", "/queues"))[1],
        ("/api/v1/jobs", "get", "422"): (await operator.call("GET", "/jobs?limit=0"))[1],
    }
    for (path, method, status), answer in answers.items():
        [media] = document["paths"][path][method]["responses"][status]["content"].values()
        problems = list(Draft202012Validator(resolved(media["schema"], document)).iter_errors(answer))
        assert not problems, (path, method, problems)
