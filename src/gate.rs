//! What an HTTP handler may ask of this process.
//!
//! No behaviour of its own beyond asking its parts; [`crate::app`] puts them
//! together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nearfar_domain::explain::Explanation;
use nearfar_domain::frames::{Download, DownloadEvent, EngineState, LoadedModel, ProviderCard};
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::Zone;
use nearfar_domain::snapshot::TargetState;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::admission::{Identity, Keys};
use crate::cache::Cache;
use crate::catalog::{Catalog, LocalModel};
use crate::config::Config;
use crate::conversations::Conversations;
use crate::export::{self, Export};
use crate::handover::{PartState, Role, Setup};
use crate::limits::Limits;
use crate::road::{Answer, Asked, Counted, Road, RoadError};
use crate::store::Ledger;
use crate::telemetry::Metrics;

/// Everything that an HTTP handler may ask. Shared by all of them.
pub struct Gate {
    pub(crate) setup: Setup,
    pub(crate) config: Config,
    pub(crate) road: Road,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) conversations: Arc<Conversations>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) export: Option<Arc<Export>>,
}

/// The other processes, as `/readyz` tells of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// This device's engine.
    pub engine: Part,
    /// The process that reaches providers.
    pub egress: Part,
    /// The local model that `auto` uses, without `local/`; `None` without models.
    pub model: Option<String>,
    /// Whether that model is in memory.
    pub model_ready: bool,
    /// Why that model could not be loaded, in public words.
    pub model_problem: Option<String>,
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub role: Role,
    /// Its state: up once it is linked to this process.
    pub state: PartState,
    /// Its process id, while it is up.
    pub pid: Option<u32>,
}

impl Parts {
    /// Whether requests of both sides find everything in its place.
    pub fn is_ready(&self) -> bool {
        let up = |part: &Part| part.state == PartState::Up;
        up(&self.engine) && up(&self.egress) && (self.model.is_none() || self.model_ready)
    }
}

impl Gate {
    /// Answers a request. See [`Road::answer`].
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn answer(self: &Arc<Self>, asked: Asked) -> Result<Answer, RoadError> {
        self.road.answer(asked).await
    }

    /// Decides and does not run; a refusal is an explanation too.
    ///
    /// # Errors
    /// When the request names no model that there is.
    pub fn route(&self, asked: Asked) -> Result<Explanation, RoadError> {
        self.road.route(asked)
    }

    /// Counts a prompt's tokens. See [`Road::count`].
    ///
    /// # Errors
    /// Why they cannot be counted.
    pub async fn count(&self, asked: Asked) -> Result<Counted, RoadError> {
        self.road.count(asked).await
    }

    /// Every target with its state of the moment, near ones first.
    pub fn targets(&self) -> Vec<TargetState> {
        let models = self.catalog.models();
        let see = |sources: &crate::snapshot::Sources<'_>| sources.snapshot(&[]);
        self.road.view.look(&models, see).targets
    }

    /// The targets that a caller may use, with their state of the moment.
    pub fn targets_for(&self, identity: &Identity) -> Vec<TargetState> {
        let mut targets = self.targets();
        let scope = identity.scope();
        targets.retain(|state| scope.allows(&state.target.id, state.target.zone()));
        targets
    }

    /// Names that let nearfar decide: `auto`, and aliases of targets that a
    /// caller may use.
    pub fn names_for(&self, identity: &Identity) -> Vec<&str> {
        let scope = identity.scope();
        let targets = self.targets();
        let usable = |id: &TargetId| {
            let found = targets.iter().find(|state| state.target.id == *id);
            // A model that an open provider does not list is far.
            let zone = found.map_or(Zone::Cloud, |state| state.target.zone());
            scope.allows(id, zone)
        };
        let aliases = self.config.aliases.iter();
        let aliases = aliases.filter(|(_, targets)| targets.iter().any(usable));
        std::iter::once("auto")
            .chain(aliases.map(|(name, _)| name.as_str()))
            .collect()
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the supervisor said at the start.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The ledger. Its queries block: ask on a blocking thread.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Limits, and what is left of them.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.road.links.use_limits
    }

    /// This device's models. A rescan blocks: ask on a blocking thread.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Answers that are kept for a while, to go on from.
    pub fn conversations(&self) -> &Arc<Conversations> {
        &self.conversations
    }

    /// Virtual keys. Changes block: ask on a blocking thread.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Answers that are kept for the same question.
    pub fn cache(&self) -> &Cache {
        &self.road.cache
    }

    /// How the sending to the fleet's ledger goes; `None` where there is none.
    pub fn export(&self) -> Option<export::State> {
        self.export.as_ref().map(|export| export.state())
    }

    /// What the engine last said of itself.
    pub fn engine_state(&self) -> EngineState {
        self.road.links.engine.state()
    }

    /// Providers, as egress names them.
    pub fn providers(&self) -> Arc<Vec<ProviderCard>> {
        self.road.links.egress.cards()
    }

    /// The other processes.
    pub fn parts(&self) -> Parts {
        let links = &self.road.links;
        let part = |role, pid: Option<u32>| Part {
            role,
            state: self.road.view.parts.state(role, pid.is_some()),
            pid,
        };
        let model = self.default_model().map(|model| model.name);
        let loads = links.engine.loads();
        let loads = loads.borrow();
        let loaded = model.as_ref().and_then(|name| loads.get(name));
        let in_memory = |name: &String| {
            let state = links.engine.state();
            state.models.iter().any(|loaded| loaded.name == *name)
        };
        Parts {
            engine: part(Role::Engine, links.engine.pid()),
            egress: part(Role::Egress, links.egress.pid()),
            model_ready: matches!(loaded, Some(Ok(_))) || model.as_ref().is_some_and(in_memory),
            model_problem: loaded.and_then(|result| result.as_ref().err().cloned()),
            model,
        }
    }

    /// Has a model loaded; what comes of it shows in what is returned.
    pub async fn load_model(
        &self,
        model: &LocalModel,
    ) -> watch::Receiver<BTreeMap<String, Result<LoadedModel, String>>> {
        let engine = &self.road.links.engine;
        engine.load(&model.name, &model.source).await;
        engine.loads()
    }

    /// Has a model dropped from memory once no request uses it.
    pub async fn unload_model(&self, model: &LocalModel) {
        self.road.links.engine.unload(&model.name).await;
    }

    /// Keeps a model that is in memory for so long after its last use, in place
    /// of the configured time; `None` for as long as there is room.
    pub async fn keep_model(&self, model: &LocalModel, time: Option<Duration>) {
        self.road.links.engine.keep(&model.name, time).await;
    }

    /// The local model that `auto` uses now.
    pub fn default_model(&self) -> Option<LocalModel> {
        let models = self.catalog.models();
        let see = |sources: &crate::snapshot::Sources<'_>| sources.auto_model().cloned();
        self.road.view.look(&models, see)
    }

    /// Whether nearfar is stopping.
    pub fn is_draining(&self) -> bool {
        self.road.admission.is_draining()
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.road.admission.under_way()
    }

    /// Fetches a model's file through egress; `download.job` is drawn here.
    /// Dropping the stream stops the download; what was fetched stays.
    pub fn download(
        &self,
        download: Download,
    ) -> impl futures_util::Stream<Item = DownloadEvent> + Send + use<> {
        self.road.links.egress.download(download)
    }
}
