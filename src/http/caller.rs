//! Who calls: what a handler is given of it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::api::Api;
use super::problem::Problem;
use crate::admission::{Identity, WrongFeature};

/// Who calls. A handler that takes it is not reached by others.
pub(crate) struct Caller(pub(crate) Arc<Identity>);

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        Ok(Self(Arc::default()))
    }
}

impl From<WrongFeature> for Problem {
    fn from(wrong: WrongFeature) -> Self {
        let allowed = wrong.allowed.join(", ");
        Self::out_of_scope(
            "feature_not_allowed",
            "x-nearfar-feature",
            format!(
                "This key is for certain features. Set x-nearfar-feature to one of them: \
                 {allowed}."
            ),
        )
    }
}
