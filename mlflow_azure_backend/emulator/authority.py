"""The emulator's certificate authority: certificates for the real host names, made when a host is first asked for."""

from __future__ import annotations

import ipaddress
import os
import ssl
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=365)


class Authority:
    """Signs host certificates; its own certificate is trusted through ``bundle``.

    Args:
        folder: Where keys and certificates are kept, 0700.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.certificate_file = folder / "authority.pem"
        self._key_file = folder / "authority.key"
        if not self.certificate_file.exists():
            self._make()
        self._key = _load_key(self._key_file)
        self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())

    def bundle(self) -> Path:
        """A file with the authorities that this process trusts and our own, for ``REQUESTS_CA_BUNDLE``."""
        file = self._folder / "bundle.pem"
        file.write_bytes(_trusted_here().read_bytes().rstrip() + b"\n" + self.certificate_file.read_bytes())
        return file

    def context(self, host: str) -> ssl.SSLContext:
        """What a TLS server needs to be taken for ``host``."""
        if host not in self._contexts:
            certificate, key = self.files(host)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._contexts[host] = context
        return self._contexts[host]

    def files(self, host: str) -> tuple[Path, Path]:
        """A certificate for ``host`` and its key, as PEM files."""
        certificate_file, key_file = self._folder / f"{host}.pem", self._folder / f"{host}.key"
        if not certificate_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            names = x509.SubjectAlternativeName([_general_name(host)])
            builder = _builder(host[:64], self._certificate.subject, key.public_key())
            builder = builder.add_extension(names, critical=False).add_extension(usage, critical=False)
            builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(authority, critical=False)
            _write_key(key_file, key)
            certificate_file.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        return certificate_file, key_file

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"mlflow-azure emulator {uuid.uuid4().hex[:8]}"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(name, subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        _write_key(self._key_file, key)
        self.certificate_file.write_bytes(_pem(builder.sign(key, hashes.SHA256())))


def _trusted_here() -> Path:
    """The bundle that this process was told to trust, else the system's, else certifi's."""
    told = [os.environ.get("REQUESTS_CA_BUNDLE"), os.environ.get("SSL_CERT_FILE")]
    for file in (*told, ssl.get_default_verify_paths().cafile, certifi.where()):
        if file and Path(file).is_file():
            return Path(file)
    raise FileNotFoundError(f"{certifi.where()}: no bundle of certificate authorities on this machine")


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + _LIFETIME)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{file} holds no elliptic-curve key")
    return key


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
