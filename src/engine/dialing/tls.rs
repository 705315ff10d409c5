//! TLS to a server, by rustls with cryptography that is Rust and verified assembly: no C.

use std::{fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::verifier::{Trusted, Verifier};

/// Why something has failed, for the text of an exception.
pub type Reason = Arc<str>;

/// How to connect by TLS.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificates in the form PEM: those of the `authorities` that are trusted, `None` for
    /// the system's, and the client's `own` with its chain, and its key. Without `verifies` the
    /// server's certificate is not verified.
    ///
    /// # Errors
    /// The reason why they cannot be used, or why this processor cannot do TLS.
    pub fn new(
        authorities: Option<&[u8]>,
        own: Option<(&[u8], &[u8])>,
        verifies: bool,
    ) -> Result<Self, Reason> {
        let provider = Arc::new(provider()?);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Reason::from(error.to_string()))?;
        let builder = match authorities {
            _ if !verifies => builder
                .dangerous()
                .with_custom_certificate_verifier(Verifier::new(&provider, None)),
            None => builder.with_root_certificates(system_roots()?),
            Some(pem) => {
                let certificates = read_certificates(pem, "the authorities' certificates")?;
                let roots = roots(&certificates)?;
                let authorities =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                        .build()
                        .map_err(|error| Reason::from(error.to_string()))?;
                let trusted = Trusted {
                    authorities,
                    certificates,
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Verifier::new(&provider, Some(trusted)))
            }
        };
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = read_certificates(chain, "the client's certificate")?;
                let key = read_key(key)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| Reason::from(format!("the client's certificate: {error}")))?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Encrypts a stream to `host`.
    pub(crate) async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await
    }
}

fn read_certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{what}: there is none in the file").into()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{what}: {error}").into()),
    }
}

fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Reason> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        // In the line that begins it, or in a header of the older form.
        let is_encrypted = pem.windows(9).any(|part| part == b"ENCRYPTED");
        let reason = if is_encrypted {
            "it is encrypted".into()
        } else {
            error.to_string()
        };
        format!("the client's key: {reason}").into()
    })
}

/// The authorities that the system trusts.
fn system_roots() -> Result<RootCertStore, Reason> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("the system has no certificates of authorities".into());
    }
    Ok(roots)
}

/// The authorities that the user trusts.
fn roots(certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Reason> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| Reason::from(format!("the authorities' certificates: {error}")))?;
    }
    Ok(Arc::new(roots))
}

/// The cryptography, if this processor has what it needs: it would panic without.
#[cfg(target_arch = "x86_64")]
fn provider() -> Result<CryptoProvider, Reason> {
    use std::arch::is_x86_feature_detected as has;

    let is_able = has!("aes")
        && has!("pclmulqdq")
        && has!("bmi1")
        && has!("bmi2")
        && has!("adx")
        && has!("avx")
        && has!("avx2");
    if is_able {
        Ok(rustls_graviola::default_provider())
    } else {
        Err("TLS needs a processor with AES, PCLMULQDQ, BMI2, ADX and AVX2".into())
    }
}

/// The cryptography, if this processor has what it needs: it would panic without.
#[cfg(target_arch = "aarch64")]
fn provider() -> Result<CryptoProvider, Reason> {
    use std::arch::is_aarch64_feature_detected as has;

    if has!("neon") && has!("aes") && has!("pmull") && has!("sha2") {
        Ok(rustls_graviola::default_provider())
    } else {
        Err("TLS needs a processor with the cryptography extensions".into())
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn provider() -> Result<CryptoProvider, Reason> {
    Err("TLS needs a processor of the kind x86_64 or aarch64".into())
}
