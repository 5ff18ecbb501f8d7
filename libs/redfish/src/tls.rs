use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS12,
};

use crate::{
    Error, Result, Weaknesses,
    connection::{Seen, Target},
    weak,
};

/// How a BMC's certificate is trusted.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Signed by one of these (DER).
    Ca(Vec<Vec<u8>>),
    /// One of these: SHA-256, hex. More than one while a certificate is being replaced. With what of it is put up with.
    Pin(Vec<String>, Weaknesses),
    /// Whichever comes; the caller records it and pins it, or was told not to care.
    Any,
}

/// Makes aws-lc-rs the process's provider; safe to call again.
pub fn install_crypto() {
    let _ = aws_lc_rs::default_provider().install_default();
}

#[derive(Debug)]
struct Verifier {
    pins: Option<Vec<String>>,
    weaknesses: Weaknesses,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let shown = ironyard_types::sha256_hex(certificate);
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Some(shown.clone());
        }
        if let Some(pins) = &self.pins
            && !pins.iter().any(|pin| pin.eq_ignore_ascii_case(&shown))
        {
            let why = format!("certificate {shown} is not the pinned {}", pins.join(" or "));
            return Err(rustls::Error::General(why));
        }
        self.weaknesses.check(certificate, &shown).map_err(rustls::Error::General)?;
        match &self.authorities {
            Some(authorities) => authorities
                .verify_server_cert(certificate, intermediates, name, ocsp, now)
                .map_err(|why| rustls::Error::General(format!("{why}; to take it all the same: tls.trust: pin, tls.sha256: {shown}"))),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        if self.weaknesses.any() {
            return weak::verify(message, certificate, signature);
        }
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        if self.weaknesses.any() {
            return weak::verify(message, certificate, signature);
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        if self.weaknesses.any() {
            return self.weaknesses.schemes();
        }
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Shared by all connections: thousands of copies of one table are megabytes.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

fn of_authorities(authorities: &[Vec<u8>]) -> Result<Arc<WebPkiServerVerifier>> {
    let tls = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from(authority.clone())).map_err(|e| tls(&e))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone())
        .build()
        .map_err(|e| tls(&e))
}

/// Why a certificate (the first; DER), with its issuers, would not be trusted of this BMC by its authorities. Other kinds of trust go along with a
/// change.
pub fn would_trust(trust: &Trust, target: &Target, chain: &[Vec<u8>]) -> Result<()> {
    let Trust::Ca(authorities) = trust else { return Ok(()) };
    let tls = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let name = match &target.name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|e| tls(&e))?,
        None => ServerName::from(target.address),
    };
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let Some((first, issuers)) = chain.split_first() else {
        return Err(Error::Tls("there is no certificate".to_owned()));
    };
    of_authorities(authorities)?
        .verify_server_cert(first, issuers, &name, &[], UnixTime::now())
        .map(|_| ())
        .map_err(|e| tls(&e))
}

pub(crate) fn config(trust: &Trust, seen: Seen) -> Result<ClientConfig> {
    let provider = PROVIDER.clone();
    let tls = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let (pins, weaknesses, authorities) = match trust {
        Trust::Ca(authorities) => (None, Weaknesses::default(), Some(of_authorities(authorities)?)),
        Trust::Pin(pins, weaknesses) => (Some(pins.clone()), *weaknesses, None),
        Trust::Any => (None, Weaknesses::default(), None),
    };
    // TLS 1.3 signs with RSA-PSS, which is not checked for keys so short.
    let versions: &[_] = if weaknesses.rsa_1024 { &[&TLS12] } else { DEFAULT_VERSIONS };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|e| tls(&e))?;
    // What is shown is noted, however it is trusted.
    let verifier = Arc::new(Verifier {
        pins,
        weaknesses,
        authorities,
        seen,
        provider,
    });
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // One BMC, one session to resume: the default keeps room for hundreds.
    config.resumption = Resumption::in_memory_sessions(2);
    Ok(config)
}
