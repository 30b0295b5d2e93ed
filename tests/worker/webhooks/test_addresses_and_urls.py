"""Where a webhook may go: every odd spelling, range and name is refused at save and at send, in the same words.

The numbers in brackets are those of the list that the rule was built against.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from worker.settings import Settings
from worker.webhooks import addresses, urls
from worker.webhooks.addresses import Allowed
from worker.webhooks.transport import Sender
from worker.webhooks.urls import Refused, Rule

EVERYTHING = Rule(Allowed.parse(["0.0.0.0/0", "::/0"]))

SHAPES = [
    "file:///etc/passwd", "gopher://127.0.0.1:6379/_", "ftp://h.example/", "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "//127.0.0.1/", "http:///127.0.0.1/", "http:127.0.0.1/", "https://", "https:///", "https://?x", "https://:443/",
    "http://user:pw@h.example/", "https://user@h.example/", "http://example.com@127.0.0.1/", "https://@h.example/",
    "https://h.example/\t", "https://h.example/\n", "https://h.exa\rmple/", "https://h.example/\x00", " https://h.example/",
    "https://h.example/a b", "https://h%00.evil/", "https://h%2eexample/", "https://h.example\\@evil.example/",
    "https://h.example/#f", "javascript:alert(1)", "data:text/html,x", "", "https://h.example/" + "a" * 2000,
    "https://h..example/", "https://.example/", "https://h.example./", "https://-h.example/", "https://h.example:/",
    "https://h.example:0/", "https://h.example:99999/", "https://h.example:+443/", "https://h.example:443a/",
    "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1/", "http://[v1.a]/", "http://[::g]/",
    "http://①②⑦.⓪.⓪.①/", "https://xn--/", "https://xn--99999.example/", "https://xn--zzzzzzzzzz--/", "https://\u0430pple.com/", "https://bücher.example/",
    "https://a。example/", "https://" + "a" * 64 + ".example/", "https://" + "a." * 130 + "example/",
]  # fmt: skip
"""[1-15] What leaves something to guess."""

PORTS = [22, 25, 53, 111, 389, 2375, 3306, 4222, 5432, 6379, 9200, 11211]
"""[13]"""

ADDRESSES = [
    "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0", "2852039166",
    "0xa9fea9fe", "[::1]", "[::]", "[::ffff:7f00:1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2600:1::5efe:7f00:1]", "[2600:1::200:5efe:7f00:1]",
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "169.254.170.2", "169.254.1.1", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192",
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16", "[fc00::1]", "[fd00:ec2::254]",
    "[fd20:ce::254]", "[fe80::1]", "[febf::1]", "[fec0::1]", "[ff02::1]", "[100::1]", "[100:0:0:1::1]", "[2001:db8::1]",
    "[3fff::1]", "[5f00::1]", "[2001::1]", "[2001:20::1]", "[4000::1]", "[1::1]", "[64:ff9b:1::1]",
]  # fmt: skip
"""[17-59] Addresses that are not public, in every spelling."""

NAMES = [
    "redis", "nats:8443", "localhost", "x.localhost", "metadata.google.internal", "metadata", "db.internal",
    "printer.local", "kubernetes.default.svc", "api.default.svc.cluster", "nas.lan", "router.home", "wiki.corp",
]  # fmt: skip
"""[16, 60, 61] Names of inner networks, whatever they resolve to."""

METADATA = [
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254",
    "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "2002:a9fe:a9fe::",
]  # fmt: skip

PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "::ffff:8.8.8.8",
    "172.32.0.1", "100.128.0.1", "198.20.0.1", "2600::a9fe:a9fe",
]  # fmt: skip


async def public_resolver(host, port):
    return [ip_address("93.184.216.34")]


BAD_URLS = [
    *SHAPES,
    *(f"https://hooks.example:{port}/" for port in PORTS),
    *(f"{scheme}://{host}/" for host in (*ADDRESSES, *NAMES) for scheme in ("http", "https")),
]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_a_url_of_the_list_is_refused_at_save_and_at_send_in_the_same_words(url):
    sender = Sender(Rule(), resolve=public_resolver)
    with pytest.raises(Refused) as at_save:
        await sender.check(url)
    answer = await sender.send("POST", url, {}, b"", 5)
    assert (answer.error_class, answer.error, answer.peer_ip) == ("refused", str(at_save.value), None)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_not_refused(text):
    address = ip_address(text)
    assert addresses.kind_of(address) is None
    assert not addresses.is_metadata(address)
    host = f"[{text}]" if ":" in text else text
    assert Rule().judge(urls.parse(f"https://{host}/hook"), [address])


@pytest.mark.parametrize("text", METADATA)
@pytest.mark.parametrize("rule", [EVERYTHING, Rule(Allowed.parse(["hooks.example", "169.254.0.0/16"]))])
def test_no_list_opens_a_metadata_address(text, rule):
    with pytest.raises(Refused, match="metadata"):
        rule.judge(urls.parse("https://hooks.example/"), [ip_address(text)])


def test_no_list_opens_a_metadata_name():
    rule = Rule(Allowed.parse(["metadata.google.internal", "0.0.0.0/0"]))
    with pytest.raises(Refused, match="credentials"):
        rule.judge(urls.parse("http://metadata.google.internal/"), [ip_address("10.0.0.1")])


def test_an_allowed_network_opens_its_addresses_plain_http_and_inner_names_and_nothing_else():
    rule = Rule(Allowed.parse(["10.1.0.0/16"]))
    inside, beside = ip_address("10.1.2.3"), ip_address("10.2.2.3")
    for url in ("http://10.1.2.3:8080/", "http://erp.internal/", "https://erp/"):
        assert rule.judge(urls.parse(url), [inside]) == (inside,)
    with pytest.raises(Refused, match=r"10\.2\.2\.3, which is not public \(a private network\)"):
        rule.judge(urls.parse("http://erp.internal/"), [beside])
    with pytest.raises(Refused, match=r"10\.2\.2\.3"):
        rule.judge(urls.parse("http://erp.internal/"), [inside, beside])
    with pytest.raises(Refused, match="https"):
        rule.judge(urls.parse("http://hooks.example/"), [ip_address("8.8.8.8")])


def test_an_allowed_host_may_be_anywhere_and_a_star_means_what_is_below():
    rule = Rule(Allowed.parse(["Receiver", "*.corp.example"]))
    address = ip_address("192.168.1.1")
    for host in ("receiver", "RECEIVER", "a.corp.example", "a.b.corp.example"):
        assert rule.judge(urls.parse(f"http://{host}:8080/x"), [address]) == (address,)
    for host in ("corp.example", "a.corp.example.evil.example", "xcorp.example", "other"):
        with pytest.raises(Refused):
            rule.judge(urls.parse(f"http://{host}:8080/x"), [address])


def test_localhost_means_the_loopback_address_that_is_allowed():
    rule = Rule(Allowed.parse(["127.0.0.0/8"]))
    both = [ip_address("::1"), ip_address("127.0.0.1")]
    assert rule.judge(urls.parse("http://localhost:9000/"), both) == (both[1],)


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://127.0.0.1:8000/x", "127.0.0.1"), ("http://127.1.1.1:8000/x", "127.1.1.1"), ("http://localhost:8000/", "::1"),
     ("https://desk.example/api", "8.8.8.8"), ("https://DESK.example:443/", "8.8.8.8")],
)  # fmt: skip
def test_the_desk_itself_is_no_receiver(url, address):
    settings = Settings(
        "sqlite:///x", "k" * 40, public_url="https://desk.example", webhook_allow=("127.0.0.0/8", "::1")
    )
    with pytest.raises(Refused, match="this desk itself"):
        Rule.of(settings).judge(urls.parse(url), [ip_address(address)])


@pytest.mark.parametrize(
    "answers",
    [["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "::1"], ["10.0.0.1", "2606:4700:4700::1111"], ["8.8.8.8"] * 9],
)
def test_one_bad_answer_or_too_many_refuse_the_name(answers):
    with pytest.raises(Refused):
        Rule().judge(urls.parse("https://hooks.example/"), [ip_address(text) for text in answers])


@pytest.mark.parametrize(
    "url", ["https://hooks.example/a?b=c%20d", "https://h.example:8443", "https://xn--bcher-kva.example/"]
)
def test_an_ordinary_url_is_good(url):
    target = urls.parse(url)
    assert Rule().judge(target, [ip_address("8.8.8.8")])
    assert str(target.url) == url


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/8", "10.0.0.1", "::1", "fd00::/8", "receiver", "hooks.corp.example", "*.corp.example"]
)
def test_an_entry_of_the_list_is_a_network_or_a_host(entry):
    assert addresses.entry_problem(entry) is None


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.0/33", "10.0.0", "1.2.3.4:80", "h:80", "https://h", "*", "*.", "a b", "[::1]", "a..b", "*.*.x"],
)
def test_an_entry_that_means_nothing_is_named_at_the_start_with_what_is_allowed(entry):
    assert "10.0.0.0/8" in str(addresses.entry_problem(entry))
