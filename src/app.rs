//! The only wiring: what the supervisor hands over becomes a running gate.
//!
//! [`run`] reads as build -> spawn -> wait -> bounded drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nearfar_domain::frames::ProviderCard;
use nearfar_domain::ids::TargetId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::account::Books;
use crate::admission::{Admission, Keys};
use crate::cache::Cache;
use crate::catalog::{Catalog, LocalModel};
use crate::config::Config;
use crate::conversations::{self, Conversations};
use crate::execute::Links;
use crate::export::Export;
use crate::gate::Gate;
use crate::guard::Guard;
use crate::handover::{Handed, Role, Setup};
use crate::health::{Health, Lengths, Prior};
use crate::limits::Limits;
use crate::links::{EgressLink, EngineLink};
use crate::prices::Tariffs;
use crate::road::Road;
use crate::snapshot::View;
use crate::snapshot::parts::PartBoard;
use crate::store::Ledger;
use crate::telemetry::Metrics;

/// Runs the gate until the supervisor says to drain, or is gone. Calls `ready`
/// once everything is in place to serve the first listener.
///
/// # Errors
/// When the ledger cannot be opened.
pub async fn run(
    setup: Setup,
    config: Config,
    handed: mpsc::Receiver<Handed>,
    ready: impl FnOnce() + Send,
) -> std::io::Result<()> {
    let gate = build(setup, config).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_model_loaded(Arc::clone(&gate)));
    tasks.spawn(note_use_of_keys(Arc::clone(&gate.keys)));
    tasks.spawn(keep_budgets(Arc::clone(&gate)));
    if gate.limits().sharing().is_some() {
        let gate = Arc::clone(&gate);
        tasks.spawn(async move { gate.limits().keep_shared().await });
    }
    if let Some(export) = gate.export.clone() {
        tasks.spawn(async move { export.run().await });
    }
    let draining = gate.road.admission.watch_draining();
    ready();
    let within = serve(&gate, handed, &draining).await;
    tracing::info!(under_way = gate.under_way(), "the gate has stopped");
    tasks.abort_all();
    let (ledger, keys) = (Arc::clone(&gate.ledger), Arc::clone(&gate.keys));
    ledger.keep_limits(&gate.limits().take_changes());
    // The rows of the last answers; bounded, so that a stuck disk stops no stop.
    let flush = tokio::task::spawn_blocking(move || {
        ledger.flush();
        keys.note_use();
    });
    let _ = tokio::time::timeout(within.max(Duration::from_secs(1)), flush).await;
    Ok(())
}

async fn build(setup: Setup, config: Config) -> std::io::Result<Arc<Gate>> {
    let state_dir = setup.state_dir.clone();
    let asked = config.clone();
    let use_limits = Limits::new(config.use_limits.clone(), config.answer_tokens);
    let budgets = Arc::clone(&use_limits);
    let opened = tokio::task::spawn_blocking(move || {
        let ledger = Ledger::open(&state_dir).map_err(std::io::Error::other)?;
        if !budgets.is_empty() {
            match ledger.limits() {
                Ok(kept) => budgets.restore(&kept),
                Err(error) => tracing::error!("{error}; budgets begin at nothing"),
            }
        }
        let keys = Keys::open(&asked);
        Ok::<_, std::io::Error>((ledger, Catalog::open(&state_dir), keys))
    });
    let (ledger, catalog, keys) = opened.await.map_err(std::io::Error::other)??;
    if let Some(name) = &config.local.default_model
        && !catalog.models().iter().any(|model| model.name == *name)
    {
        tracing::warn!(
            model = %name,
            "local.default_model is not installed, so `auto` uses the best model that is; \
             see `nearfar model list`"
        );
    }
    let stores = (Arc::new(ledger), Arc::new(catalog), Arc::new(keys));
    Ok(wire(setup, config, use_limits, stores))
}

/// What lies on the disk.
type Stores = (Arc<Ledger>, Arc<Catalog>, Arc<Keys>);

/// Puts the parts together. No I/O.
fn wire(setup: Setup, config: Config, use_limits: Arc<Limits>, stores: Stores) -> Arc<Gate> {
    let (ledger, catalog, keys) = stores;
    let metrics = Arc::new(Metrics::new());
    let health: Arc<Health> = Arc::default();
    let lengths: Arc<Lengths> = Arc::default();

    let (timed, files) = (Arc::clone(&health), Arc::clone(&catalog));
    let engine = EngineLink::new(Box::new(move |model, timings| {
        let models = files.models();
        let bytes = models.iter().find(|known| known.name == model);
        let prior = Prior::local(bytes.map_or(0, |known| known.file_bytes));
        timed.engine_timings(&TargetId::local(model), &prior, timings);
    }));
    let egress = EgressLink::new(config.providers.iter().map(expected_card).collect());

    let (counts, rows, learned) = (
        Arc::clone(&metrics),
        Arc::clone(&ledger),
        Arc::clone(&lengths),
    );
    let books = Books::new(Box::new(move |row| {
        counts.request_ended(&row);
        if let (true, Some(tokens)) = (row.outcome == "ok", row.completion_tokens) {
            learned.observe(&row.feature, tokens);
        }
        rows.record(row);
    }));

    if let Some(shared) = &config.shared {
        let link = egress.clone();
        let ask = move |call| -> std::pin::Pin<Box<dyn Future<Output = _> + Send>> {
            let link = link.clone();
            Box::pin(async move { link.shared(call).await })
        };
        use_limits.share(Box::new(ask), shared.wait);
    }
    let export = config
        .fleet_ledger
        .as_ref()
        .map(|_| Arc::new(Export::new(Arc::clone(&ledger), egress.clone())));
    let listed = Arc::clone(&catalog);
    let road = Road {
        admission: Admission::new(config.server.max_requests),
        view: View {
            models: Box::new(move || listed.models()),
            preferred: config.local.default_model.clone(),
            memory_bytes: config
                .local
                .memory_budget
                .unwrap_or_else(nearfar_engine::default_memory_budget),
            engine: engine.clone(),
            egress: egress.clone(),
            parts: Arc::new(PartBoard::new(Instant::now())),
            health: Arc::clone(&health),
            tariffs: Arc::new(Tariffs::new(
                crate::prices::handed(&setup.prices_text),
                &config.providers,
            )),
            local_price: config.local.price,
            aliases: config.aliases.clone(),
        },
        links: Links {
            engine,
            egress,
            health,
            metrics: Arc::clone(&metrics),
            limits: config.limits,
            use_limits,
            retries: config.retries,
        },
        lengths,
        privacy: config.privacy.clone(),
        guard: Arc::new(Guard::new(config.guard.clone())),
        cache: Arc::new(Cache::new(config.cache.clone())),
        books,
        savings_baseline: config.savings_baseline.clone(),
    };
    let kept = conversations::Limits {
        bytes: config.server.keep_answers_bytes,
        age: config.server.keep_answers,
    };
    Arc::new(Gate {
        setup,
        config,
        road,
        metrics,
        ledger,
        catalog,
        conversations: Arc::new(Conversations::new(kept)),
        keys,
        export,
    })
}

/// What a provider will say of itself once egress is there: enough to know its
/// models by name. Whether its key is there, egress alone knows.
fn expected_card(provider: &nearfar_egress::Provider) -> ProviderCard {
    ProviderCard {
        name: provider.name.clone(),
        dialect: provider.dialect,
        zone: provider.zone,
        ready: true,
        models: provider.models.clone(),
        open_list: provider.open_list,
    }
}

/// Takes what the supervisor hands over until it is time to stop; then waits
/// for what is under way. Returns how much of the time to stop is left.
async fn serve(
    gate: &Arc<Gate>,
    mut handed: mpsc::Receiver<Handed>,
    draining: &watch::Receiver<bool>,
) -> Duration {
    let mut listeners = JoinSet::new();
    let within = loop {
        match handed.recv().await {
            Some(Handed::Listener(kind, fd)) => {
                let gate = Arc::clone(gate);
                listeners.spawn(crate::http::serve_listener(
                    gate,
                    kind,
                    fd,
                    draining.clone(),
                ));
            }
            Some(Handed::Link(Role::Engine, stream)) => gate.road.links.engine.connect(stream),
            Some(Handed::Link(Role::Egress, stream)) => gate.road.links.egress.connect(stream),
            Some(Handed::Link(Role::Gate, _)) => {}
            Some(Handed::Part { role, state }) => {
                gate.road.view.parts.hear(role, state, Instant::now());
            }
            Some(Handed::Drain { within }) => break within,
            // Without a supervisor nobody restarts what breaks: finish and go.
            None => break gate.config.server.drain,
        }
    };
    let end = tokio::time::Instant::now() + within;
    gate.road.admission.drain();
    let stopped = async {
        gate.road.admission.idle().await;
        while listeners.join_next().await.is_some() {}
    };
    if tokio::time::timeout_at(end, stopped).await.is_err() {
        tracing::warn!("answers were still under way when the time to stop was over");
    }
    // Dropped connections cancel their answers and settle their accounts.
    listeners.shutdown().await;
    end.saturating_duration_since(tokio::time::Instant::now())
}

/// Writes down once in a while when keys were used last.
async fn note_use_of_keys(keys: Arc<Keys>) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let keys = Arc::clone(&keys);
        // It tells of its own failures.
        let _ = tokio::task::spawn_blocking(move || keys.note_use()).await;
    }
}

/// Has the default local model loaded whenever a new engine is there, and the
/// embedded one in its place when it cannot be loaded.
async fn keep_model_loaded(gate: Arc<Gate>) {
    let engine = &gate.road.links.engine;
    let mut generation = 0;
    loop {
        let Some(newer) = engine.newer_than(generation).await else {
            return;
        };
        generation = newer;
        // The default, and once more what stands in for it.
        for _ in 0..2 {
            let Some(model) = gate.default_model() else {
                break;
            };
            let target = TargetId::local(&model.name);
            let health = &gate.road.links.health;
            match load(engine, &model, generation).await {
                Loading::Done => break,
                Loading::Failed(problem) => {
                    tracing::warn!(model = %model.name, "the model cannot be loaded: {problem}");
                    health.broken(&target, Instant::now());
                }
                Loading::EngineGone => {
                    health.crashed_while_loading(&target, generation, Instant::now());
                    break;
                }
            }
        }
        preload(&gate).await;
    }
}

/// Figures of budgets wait this long for more of them before they are written.
const KEEP_AFTER: Duration = Duration::from_millis(100);

/// Writes the figures of budgets down whenever they have changed, away from the
/// path of requests. What does not fit the ledger's queue is written a little
/// later.
async fn keep_budgets(gate: Arc<Gate>) {
    let limits = gate.limits();
    loop {
        limits.changed().await;
        tokio::time::sleep(KEEP_AFTER).await;
        let figures = limits.take_changes();
        if !figures.is_empty() && !gate.ledger.keep_limits(&figures) {
            limits.keep_all();
        }
    }
}

/// Has the models of `local.preload` loaded, after the default one, and the one
/// that the cache reads questions with.
async fn preload(gate: &Gate) {
    let models = gate.catalog.models();
    let semantic = gate.config.cache.semantic.as_ref();
    let questions = semantic.map(|semantic| &semantic.model);
    for name in gate.config.local.preload.iter().chain(questions) {
        match models.iter().find(|model| model.name == *name) {
            Some(model) => {
                gate.road
                    .links
                    .engine
                    .load(&model.name, &model.source)
                    .await
            }
            None => tracing::warn!(
                model = %name,
                "local.preload or cache.semantic names a model that is not installed; see \
                 `nearfar model list`"
            ),
        }
    }
}

enum Loading {
    Done,
    Failed(String),
    EngineGone,
}

async fn load(engine: &EngineLink, model: &LocalModel, generation: u64) -> Loading {
    let mut loads = engine.loads();
    engine.load(&model.name, &model.source).await;
    tokio::select! {
        settled = loads.wait_for(|loads| loads.contains_key(&model.name)) => match settled {
            Ok(loads) => match loads.get(&model.name) {
                Some(Err(problem)) => Loading::Failed(problem.clone()),
                _ => Loading::Done,
            },
            Err(_) => Loading::EngineGone,
        },
        _ = engine.newer_than(generation) => Loading::EngineGone,
    }
}
