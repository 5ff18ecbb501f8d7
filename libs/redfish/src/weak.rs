//! Certificates that nobody makes any more and old BMCs have.
//!
//! What makes one of them worth anything is its pin, which whoever names the weakness has to give: then the only thing that its key is needed for is
//! that the BMC shows to have it.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::{
    CertificateError, DigitallySignedStruct, SignatureScheme, client::danger::HandshakeSignatureValid, pki_types::CertificateDer,
};
use x509_parser::{public_key::PublicKey, x509::X509Version};

/// What of a certificate is put up with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weaknesses {
    /// An RSA key of less than 2048 bits, from 1024 on.
    pub rsa_1024: bool,
    /// X.509 version 1.
    pub x509_v1: bool,
}

/// Bits of an RSA key that need no leave, and the least that can be had with it.
const RSA_BITS: usize = 2048;
const LEAST_RSA_BITS: usize = 1024;

/// Schemes in which a BMC may show that it has the key, the usual ones first; those at the end are not for short keys.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

impl Weaknesses {
    pub(crate) fn schemes(self) -> Vec<SignatureScheme> {
        let pss = [
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
        ];
        let mut schemes = SCHEMES.to_vec();
        schemes.retain(|scheme| !self.rsa_1024 || !pss.contains(scheme));
        schemes
    }

    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }

    /// Why a certificate is not taken though its fingerprint may be right, and what would allow it.
    pub(crate) fn check(self, certificate: &CertificateDer<'_>, sha256: &str) -> Result<(), String> {
        // One that cannot be read is refused by those who need what is in it.
        let Ok((_, read)) = x509_parser::parse_x509_certificate(certificate) else {
            return Ok(());
        };
        let bits = match read.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => key.key_size(),
            Ok(_) | Err(_) => RSA_BITS,
        };
        if bits < LEAST_RSA_BITS {
            return Err(format!(
                "its certificate holds an RSA key of {bits} bits, which anybody can break: give the BMC another one"
            ));
        }
        let (old, short) = (read.version() == X509Version::V1, bits < RSA_BITS);
        let (mut what, mut allow) = (vec![], vec![]);
        if short {
            what.push(format!("holds an RSA key of {bits} bits"));
            allow.push("rsa1024");
        }
        if old {
            what.push("is of X.509 v1".to_owned());
            allow.push("x509v1");
        }
        if short && !self.rsa_1024 || old && !self.x509_v1 {
            return Err(format!(
                "its certificate {}; to put up with it: tls.trust: pin, tls.sha256: {sha256}, tls.allow: [{}]",
                what.join(" and "),
                allow.join(", ")
            ));
        }
        Ok(())
    }
}

/// Checks that whoever sent this has the key of the certificate, whatever else the certificate is.
pub(crate) fn verify(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    // TLS 1.2 names a hash, and leaves the curve to the key.
    let algorithms: &[&'static dyn VerificationAlgorithm] = match signature.scheme {
        SignatureScheme::ECDSA_NISTP256_SHA256 => &[&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
        SignatureScheme::ECDSA_NISTP384_SHA384 => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P256_SHA384_ASN1],
        SignatureScheme::ED25519 => &[&ED25519],
        SignatureScheme::RSA_PKCS1_SHA256 => &[&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY],
        SignatureScheme::RSA_PKCS1_SHA512 => &[&RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY],
        SignatureScheme::RSA_PSS_SHA256 => &[&RSA_PSS_2048_8192_SHA256],
        SignatureScheme::RSA_PSS_SHA384 => &[&RSA_PSS_2048_8192_SHA384],
        SignatureScheme::RSA_PSS_SHA512 => &[&RSA_PSS_2048_8192_SHA512],
        _ => return Err(CertificateError::BadSignature.into()),
    };
    let (_, read) = x509_parser::parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = &read.public_key().subject_public_key.data;
    let fits = |algorithm: &&'static dyn VerificationAlgorithm| {
        UnparsedPublicKey::new(*algorithm, key)
            .verify(message, signature.signature())
            .is_ok()
    };
    if algorithms.iter().any(fits) {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}
