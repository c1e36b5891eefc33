//! SCRAM (RFC 5802, RFC 7677): proving a password without sending it, and having the broker prove that it knows it.
//!
//! Pure but for the nonce. As Kafka's own client does, the password goes in as it is (no SASLprep), and fewer than
//! 4096 iterations are refused.

use openssl::base64::{decode_block, encode_block};
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::memcmp;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sign::Signer;

use crate::client::security::Secret;

/// Kafka's `ScramMechanism`: fewer are not taken.
const MIN_ITERATIONS: usize = 4096;
/// Kafka itself makes 16,384 at most. A broker that asks for more than this wants our processor's time.
const MAX_ITERATIONS: usize = 1_000_000;
/// No channel binding (`n,,`), in Base64.
const UNBOUND: &str = "c=biws";

/// One attempt.
pub(super) struct Scram<'a> {
    digest: MessageDigest,
    password: &'a Secret,
    nonce: String,
    /// The first message without its header: part of what is signed.
    first_bare: String,
    /// What the broker has to sign with, once it is known.
    expected: Vec<u8>,
}

/// A nonce that nobody has had.
pub(super) fn nonce() -> Result<String, ErrorStack> {
    let mut bytes = [0; 24];
    rand_bytes(&mut bytes)?;
    Ok(encode_block(&bytes))
}

impl<'a> Scram<'a> {
    pub(super) fn new(digest: MessageDigest, user: &str, password: &'a Secret, nonce: String) -> Self {
        // RFC 5802, 5.1: these two would end the name.
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self { digest, password, first_bare: format!("n={user},r={nonce}"), nonce, expected: Vec::new() }
    }

    /// The first message.
    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// The second message, which answers the broker's first. The error says what is wrong with that.
    pub(super) fn last(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let server_first = std::str::from_utf8(server_first).map_err(|_| "its message is no text".to_owned())?;
        let nonce = field(server_first, "r=").ok_or("its message has no nonce")?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err("its nonce does not begin with ours: this is an answer to somebody else".to_owned());
        }
        let salt = field(server_first, "s=").and_then(|salt| decode_block(salt).ok());
        let salt = salt.filter(|salt| !salt.is_empty()).ok_or("its message has no salt")?;
        let iterations = field(server_first, "i=").and_then(|i| i.parse::<usize>().ok());
        let iterations = iterations.ok_or("its message has no number of iterations")?;
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(format!(
                "it asks for {iterations} iterations, and {MIN_ITERATIONS} to {MAX_ITERATIONS} are taken; change the user's SCRAM credentials"
            ));
        }
        let without_proof = format!("{UNBOUND},r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.first_bare);
        let proof = self.proof(&salt, iterations, signed.as_bytes()).map_err(|e| format!("OpenSSL: {e}"))?;
        Ok(format!("{without_proof},p={}", encode_block(&proof)).into_bytes())
    }

    /// RFC 5802, 3.
    fn proof(&mut self, salt: &[u8], iterations: usize, signed: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let mut salted = vec![0; self.digest.size()];
        pbkdf2_hmac(self.password.reveal().as_bytes(), salt, iterations, self.digest, &mut salted)?;
        let client_key = self.hmac(&salted, b"Client Key")?;
        let stored_key = hash(self.digest, &client_key)?;
        let signature = self.hmac(&stored_key, signed)?;
        let server_key = self.hmac(&salted, b"Server Key")?;
        self.expected = self.hmac(&server_key, signed)?;
        Ok(client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect())
    }

    fn hmac(&self, key: &[u8], text: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let key = PKey::hmac(key)?;
        let mut signer = Signer::new(self.digest, &key)?;
        signer.update(text)?;
        signer.sign_to_vec()
    }

    /// Whether the broker's last message proves that it knows the password, too.
    pub(super) fn verify(&self, server_final: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(server_final).map_err(|_| "its last message is no text".to_owned())?;
        if let Some(error) = field(text, "e=") {
            return Err(error.escape_debug().to_string());
        }
        let signature = field(text, "v=").and_then(|v| decode_block(v).ok()).unwrap_or_default();
        let same = signature.len() == self.expected.len() && memcmp::eq(&signature, &self.expected);
        if same && !self.expected.is_empty() {
            Ok(())
        } else {
            Err("it does not prove that it knows the password itself: this may not be the broker that it pretends to be"
                .to_owned())
        }
    }
}

/// The value of the attribute that begins with `name`.
fn field<'t>(message: &'t str, name: &str) -> Option<&'t str> {
    message.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn of(password: &Secret) -> Scram<'_> {
        Scram::new(MessageDigest::sha256(), "user", password, NONCE.to_owned())
    }

    /// RFC 7677, 3.
    #[test]
    fn the_example_of_the_standard() {
        let password = Secret::new("pencil");
        let mut scram = of(&password);
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = scram.last(SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(last).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        for forged in ["v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95H4=", "v=", "", "v=6rri", "v=!", "e=invalid-proof"] {
            scram.verify(forged.as_bytes()).unwrap_err();
        }
        of(&password).verify(b"v=").unwrap_err();
    }

    #[test]
    fn a_broker_that_cheats_gets_no_proof() {
        let password = Secret::new("pencil");
        for (message, words) in [
            ("", "nonce"),
            ("r=somebodyelse%x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "somebody else"),
            ("r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "somebody else"),
            ("r=rOprNGfwEbeRWgbNEkqOx,i=4096", "salt"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096", "salt"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095", "4095 iterations"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2000000000", "iterations"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-1", "iterations"),
        ] {
            let why = of(&password).last(message.as_bytes()).unwrap_err();
            assert!(why.contains(words), "{message}: {why}");
        }
        of(&password).last(b"\xff\xfe").unwrap_err();
    }

    #[test]
    fn a_name_can_have_every_letter_and_nonces_are_never_the_same() {
        let password = Secret::new("p");
        let scram = Scram::new(MessageDigest::sha512(), "a=b,c", &password, "n".to_owned());
        assert_eq!(scram.first(), b"n,,n=a=3Db=2Cc,r=n");
        assert_ne!(nonce().unwrap(), nonce().unwrap());
        assert!(!nonce().unwrap().contains(','));
    }
}
