use std::sync::{Arc, LazyLock, Mutex};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{Error, Result};

/// How a BMC's certificate is trusted.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Signed by one of these (DER).
    Ca(Vec<Vec<u8>>),
    /// One of these: SHA-256, hex. More than one while a certificate is being replaced.
    Pin(Vec<String>),
    /// Whichever comes; the caller records it and pins it, or was told not to care.
    Any,
}

/// Makes aws-lc-rs the process's provider; safe to call again.
pub fn install_crypto() {
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The fingerprint of the certificate that was last shown.
pub(crate) type Seen = Arc<Mutex<Option<String>>>;

#[derive(Debug)]
struct Verifier {
    pins: Option<Vec<String>>,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let shown = ironyard_types::sha256_hex(certificate);
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Some(shown.clone());
        }
        match &self.pins {
            Some(pins) if !pins.iter().any(|pin| pin.eq_ignore_ascii_case(&shown)) => Err(rustls::Error::General(format!(
                "certificate {shown} is not the pinned {}",
                pins.join(" or ")
            ))),
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Shared by all connections: thousands of copies of one table are megabytes.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

pub(crate) fn config(trust: &Trust, seen: Seen) -> Result<ClientConfig> {
    let provider = PROVIDER.clone();
    let tls = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(&e))?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Ca(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(CertificateDer::from(authority.clone())).map_err(|e| tls(&e))?;
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| tls(&e))?
        }
        Trust::Pin(pins) => Arc::new(Verifier {
            pins: Some(pins.clone()),
            seen,
            provider,
        }),
        Trust::Any => Arc::new(Verifier {
            pins: None,
            seen,
            provider,
        }),
    };
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // One BMC, one session to resume: the default keeps room for hundreds.
    config.resumption = Resumption::in_memory_sessions(2);
    Ok(config)
}
