//! Which certificates of a server are taken, where that is not for the system's authorities to say.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Takes certificates by the user's authorities, or any. The server has to have its key.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// `None` takes every certificate, for `verify=False`: tests against a server that has signed its
    /// certificate itself.
    trusted: Option<Trusted>,
}

/// The certificates of the user's file.
#[derive(Debug)]
pub(super) struct Trusted {
    /// Takes those that are signed by one of them.
    pub(super) authorities: Arc<WebPkiServerVerifier>,
    /// Each is taken for a server's own one, too, whatever has signed it.
    ///
    /// A certificate that has signed itself mostly says of itself that it is an authority's, as
    /// `openssl req -x509` makes it, and RFC 5280 does not let an authority's certificate be a
    /// server's. Other clients take it where the user trusts exactly this certificate.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Verifier {
    pub(super) fn new(provider: &CryptoProvider, trusted: Option<Trusted>) -> Arc<Self> {
        Arc::new(Self {
            algorithms: provider.signature_verification_algorithms,
            trusted,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        status: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let authorities = &trusted.authorities;
        let is_own = trusted.certificates.contains(certificate);
        // The rest of the chain does not count for a certificate that is trusted itself.
        let chain = if is_own { &[] } else { chain };
        match authorities.verify_server_cert(certificate, chain, name, status, now) {
            // The dates were verified before that. The name was not.
            Err(error) if is_own && is_of_the_issuer(&error) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate was refused because of what has signed it: an authority that is not
/// trusted, or itself.
fn is_of_the_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => matches!(
            cause.downcast_ref::<webpki::Error>(),
            Some(webpki::Error::CaUsedAsEndEntity)
        ),
        _ => false,
    }
}
