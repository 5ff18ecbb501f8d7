"""Certificates and TLS contexts, also old and odd ones, made with the openssl command line."""

from __future__ import annotations

import re
import ssl
import subprocess
import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

KEYS = {
    "rsa1024": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "rsa2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa4096": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
    "ec256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ec384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ed25519": ["-algorithm", "ED25519"],
}
VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
DEFAULTS = {
    "key": "rsa2048",
    "version": None,
    "ciphers": None,
    "x509": 3,
    "signature": "sha256",
    "expired": False,
    "not_yet_valid": False,
    "names": ["127.0.0.1", "localhost"],
}

CA_CONFIG = """
[ca]
default_ca = own
[own]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
default_md = {digest}
policy = any
unique_subject = no
email_in_dn = no
[any]
commonName = supplied
{extensions}
"""


class TlsError(Exception):
    """A combination that the machine's OpenSSL cannot do."""


def run(*arguments: str, input_: str | None = None) -> str:
    """Call openssl and return what it prints."""
    done = subprocess.run(["openssl", *arguments], input=input_, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TlsError(
            f"openssl {arguments[0]}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
        )
    return done.stdout


def complete(options: dict) -> dict:
    """The options with defaults; refuses unknown ones."""
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise TlsError(f"unknown TLS options: {', '.join(sorted(unknown))}")
    result = {**DEFAULTS, **options}
    if result["key"] not in KEYS:
        raise TlsError(f"unknown key type {result['key']}")
    return result


def make_certificate(options: dict) -> tuple[str, str]:
    """A self-signed certificate and its key, both PEM."""
    options = complete(options)
    now = datetime.now(UTC)
    start, end = now - timedelta(days=1), now + timedelta(days=365)
    if options["expired"]:
        start, end = now - timedelta(days=30), now - timedelta(days=1)
    elif options["not_yet_valid"]:
        start = now + timedelta(days=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "index.txt").touch()
        (folder / "serial").write_text("1001\n")
        names = ",".join(
            ("IP:" if re.fullmatch(r"[\d.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*", n) else "DNS:") + n for n in options["names"]
        )
        section = "[v3]\nbasicConstraints = CA:FALSE\nkeyUsage = digitalSignature, keyEncipherment\nextendedKeyUsage = serverAuth\n"
        section += f"subjectAltName = {names}\n" if names else ""
        (folder / "ca.cnf").write_text(
            CA_CONFIG.format(
                folder=folder, digest=options["signature"], extensions=section if options["x509"] == 3 else ""
            )
        )
        run("genpkey", *KEYS[options["key"]], "-out", str(folder / "key.pem"))
        common = options["names"][0] if options["names"] else "bmc"
        run("req", "-new", "-key", str(folder / "key.pem"), "-subj", f"/CN={common}", "-out", str(folder / "csr.pem"))
        extensions = ["-extensions", "v3"] if options["x509"] == 3 else []
        run(
            "ca",
            "-batch",
            "-notext",
            "-selfsign",
            "-config",
            str(folder / "ca.cnf"),
            "-keyfile",
            str(folder / "key.pem"),
            "-in",
            str(folder / "csr.pem"),
            "-out",
            str(folder / "cert.pem"),
            "-startdate",
            start.strftime("%Y%m%d%H%M%SZ"),
            "-enddate",
            end.strftime("%Y%m%d%H%M%SZ"),
            *extensions,
        )
        certificate, key = (folder / "cert.pem").read_text(), (folder / "key.pem").read_text()
    text = run("x509", "-noout", "-text", input_=certificate)
    if f"Version: {options['x509']} " not in text:
        raise TlsError(f"openssl did not make an X.509 v{options['x509']} certificate")
    if options["key"] != "ed25519" and options["signature"] not in text.lower():
        raise TlsError(f"openssl did not sign with {options['signature']}")
    return certificate, key


def server_context(certificate: str, key: str, options: dict) -> ssl.SSLContext:
    """The context of a server; old versions and weak keys need OpenSSL's lowest security level."""
    options = complete(options)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            lower, upper = version_range(options["version"])
            context.minimum_version = lower
            context.maximum_version = upper
        if weak(options):
            context.set_ciphers((options["ciphers"] or "ALL:!aNULL") + ":@SECLEVEL=0")
        elif options["ciphers"]:
            context.set_ciphers(options["ciphers"])
        if options["ciphers"] and not options["version"]:
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # cipher strings do not govern TLS 1.3
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "both.pem"
            path.write_text(certificate + "\n" + key)
            context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(str(error)) from error
    return context


def version_range(text: str | None) -> tuple[ssl.TLSVersion, ssl.TLSVersion]:
    """`1.2` means only that, `1.0-1.2` a range."""
    if not text:
        return ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    first, _, last = str(text).partition("-")
    if first not in VERSIONS or (last or first) not in VERSIONS:
        raise TlsError(f"unknown TLS version {text}")
    return VERSIONS[first], VERSIONS[last or first]


def weak(options: dict) -> bool:
    """Whether the options are below what OpenSSL allows by default."""
    return (
        options["key"] == "rsa1024"
        or options["signature"] == "sha1"
        or str(options["version"] or "").startswith(("1.0", "1.1"))
    )


def check_handshake(context: ssl.SSLContext, options: dict) -> tuple[str, str]:
    """Try a handshake in memory; returns version and cipher, or says what is impossible."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = ssl.TLSVersion.TLSv1
    client.set_ciphers("ALL:@SECLEVEL=0")
    a, b, c, d = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side, client_side = context.wrap_bio(a, b, server_side=True), client.wrap_bio(c, d)
    for _ in range(10):
        finished = 0
        for side in (client_side, server_side):
            try:
                side.do_handshake()
                finished += 1
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                raise TlsError(f"no handshake possible with {options}: {error}") from error
            a.write(d.read())
            c.write(b.read())
        if finished == 2:
            return client_side.version() or "", client_side.cipher()[0]
    raise TlsError("no handshake possible")


def signing_request(common_name: str, names: list[str]) -> tuple[str, str]:
    """A new key and a signing request for it."""
    with tempfile.TemporaryDirectory() as name:
        path = str(Path(name) / "key.pem")
        run("genpkey", *KEYS["rsa2048"], "-out", path)
        alternative = ["-addext", "subjectAltName=" + ",".join("DNS:" + n for n in names)] if names else []
        csr = run("req", "-new", "-key", path, "-subj", f"/CN={common_name}", *alternative)
        return Path(path).read_text(), csr


def split_pem(text: str) -> tuple[str, str | None]:
    """The certificates and the private key in a text."""
    certificates = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.S)
    keys = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", text, re.S)
    return "\n".join(certificates) + ("\n" if certificates else ""), keys[0] + "\n" if keys else None


def key_fits(certificate: str, key: str) -> bool:
    """Whether a private key belongs to a certificate."""
    try:
        return run("x509", "-noout", "-pubkey", input_=certificate) == run("pkey", "-pubout", input_=key)
    except TlsError:
        return False


def describe(certificate: str) -> dict:
    """Subject and SHA-256 fingerprint of a certificate."""
    subject = run("x509", "-noout", "-subject", "-nameopt", "RFC2253", input_=certificate).strip()
    fingerprint = run("x509", "-noout", "-fingerprint", "-sha256", input_=certificate).strip().split("=")[1]
    return {"subject": subject.split("CN=")[-1].split(",")[0], "fingerprint": fingerprint}
