//! Whose token is it? The API server says (`TokenReview`); what it says is remembered for a moment.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use behalf_policy::wire::FEED_AUDIENCE;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use moka::future::Cache;
use moka::sync;
use tokio::sync::Semaphore;

/// A token that is good counts for so long without a further question.
const GOOD: Duration = Duration::from_mins(1);
/// A token that is not good is asked for again after so long: what was refused a moment ago may be good now.
const BAD: Duration = Duration::from_secs(1);
/// Tokens that are remembered.
const MOST: u64 = 100_000;
/// Reviews at a time: whoever sends tokens that are none keeps the API server no busier than this.
const REVIEWS: usize = 32;
/// No token is longer, bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Start of the user name of every service account.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Where the API server names the pod that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Where it gives the pod's UID.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Who shows a token that the feed may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub account: String,
    /// The pod the token is bound to.
    pub pod: Option<BoundPod>,
}

/// A pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// The API server does not know it, or not any more.
    #[error("the token is not valid")]
    NotAuthenticated,
    /// It was made for somebody else.
    #[error("the token is not for {FEED_AUDIENCE}")]
    Audience,
    /// It is no service account's.
    #[error("the token is not a service account's")]
    NotServiceAccount,
}

impl TokenRefusal {
    /// Closed reason, for answers and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotAuthenticated => "TokenNotAuthenticated",
            Self::Audience => "TokenAudience",
            Self::NotServiceAccount => "TokenNotServiceAccount",
        }
    }
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not taken.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
    /// The API server cannot be asked.
    #[error("the token cannot be reviewed: {0}")]
    Api(#[from] Error),
}

/// Reviews tokens. Neither a token nor its digest leaves this value.
#[derive(Clone)]
pub struct Tokens {
    api: Api<TokenReview>,
    good: Cache<[u8; 32], Bearer>,
    bad: sync::Cache<[u8; 32], TokenRefusal>,
    places: Arc<Semaphore>,
}

impl Tokens {
    /// Asks with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            good: Cache::builder().max_capacity(MOST).time_to_live(GOOD).build(),
            bad: sync::Cache::builder().max_capacity(MOST).time_to_live(BAD).build(),
            places: Arc::new(Semaphore::new(REVIEWS)),
        }
    }

    /// Who shows this token. Asked once for all who ask at the same time.
    ///
    /// # Errors
    /// It is not taken, or the API server cannot be asked.
    pub async fn review(&self, token: &str) -> Result<Bearer, TokenError> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(TokenRefusal::NotAuthenticated.into());
        }
        let key = key(token);
        if let Some(refusal) = self.bad.get(&key) {
            return Err(refusal.into());
        }
        let mut api_error = None;
        let asked = self.good.try_get_with(key, async {
            match self.ask(token).await {
                Ok(status) => bearer(status).map_err(Some),
                Err(error) => {
                    api_error = Some(error);
                    Err(None)
                }
            }
        });
        let refusal = match asked.await {
            Ok(bearer) => return Ok(bearer),
            Err(refusal) => *refusal,
        };
        match (refusal, api_error) {
            (Some(refusal), _) => {
                self.bad.insert(key, refusal);
                Err(refusal.into())
            }
            (None, Some(error)) => Err(error.into()),
            // Somebody else asked for us, and failed.
            (None, None) => Err(Error::Service("the API server could not be asked".into()).into()),
        }
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, Error> {
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![FEED_AUDIENCE.to_owned()]),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        // It is never closed.
        let _place = self.places.acquire().await;
        Ok(self.api.create(&PostParams::default(), &review).await?.status.unwrap_or_default())
    }
}

fn key(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// Reads the API server's answer: whatever is not said is not so.
fn bearer(status: TokenReviewStatus) -> Result<Bearer, TokenRefusal> {
    if status.authenticated != Some(true) || status.error.is_some_and(|error| !error.is_empty()) {
        return Err(TokenRefusal::NotAuthenticated);
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == FEED_AUDIENCE) {
        return Err(TokenRefusal::Audience);
    }
    let user = status.user.unwrap_or_default();
    let account = user.username.as_deref().and_then(|name| name.strip_prefix(ACCOUNT_PREFIX));
    let Some((namespace, account)) = account.and_then(|account| account.split_once(':')) else {
        return Err(TokenRefusal::NotServiceAccount);
    };
    let pod = extra(&user, POD_NAME).zip(extra(&user, POD_UID));
    Ok(Bearer {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        pod: pod.map(|(name, uid)| BoundPod { name, uid }),
    })
}

/// The one value of an extra; several are none.
fn extra(user: &UserInfo, key: &str) -> Option<String> {
    match user.extra.as_ref()?.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    }
}
