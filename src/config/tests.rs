#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use nearfar_domain::target::{Dialect, RemoteZone};
use nearfar_egress::{Auth, KeySource};

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    let overrides = Overrides {
        state_dir: "/state".into(),
        ..Overrides::default()
    };
    Config::parse(
        text,
        Some(Path::new("/etc/nearfar/nearfar.toml")),
        &overrides,
    )
}

fn errors(text: &str) -> String {
    parse(text).expect_err("the text has errors").to_string()
}

#[test]
fn an_empty_text_is_a_whole_configuration() {
    let config = parse("").unwrap();
    assert_eq!(config.server, Server::default());
    assert_eq!(config.server.listen, ["127.0.0.1:4141".parse().unwrap()]);
    assert_eq!(config.server.max_body_bytes, 32 << 20);
    assert_eq!(config.privacy, Privacy::default());
    assert_eq!(config.local, Local::default());
    assert_eq!(config.limits, TimeLimits::default());
    assert_eq!(config.retries, Retries::default());
    assert!(config.providers.is_empty());
    assert_eq!(config.state_dir, Path::new("/state"));
}

#[test]
fn the_example_says_what_its_comments_say() {
    let config = parse(EXAMPLE).unwrap();
    // Values that the example shows as defaults are the defaults.
    assert_eq!(config.server, Server::default());
    assert_eq!(config.limits, TimeLimits::default());
    assert_eq!(config.privacy.default, Privacy::default().default);
    assert_eq!(config.privacy.features["voice"], Zone::Device);
    let (cache, none) = (&config.cache, Cache::default());
    assert!(cache.exact && !none.is_on());
    assert_eq!(
        (cache.ttl, cache.max_bytes, cache.max_entries),
        (none.ttl, none.max_bytes, none.max_entries)
    );
    let names: Vec<_> = config.providers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["openai", "claude", "azure", "lan"]);
    assert_eq!(config.providers[2].auth, Auth::ApiKey);
    let openai = &config.providers[0];
    assert_eq!(
        openai.key,
        KeySource::File("/etc/nearfar/keys/openai".into())
    );
    let price = openai.models[0].price.unwrap();
    assert_eq!(price.rates.prompt_micro_per_mtok, 150_000);
    assert_eq!(price.rates.cached_prompt_micro_per_mtok, 75_000);
    assert_eq!(config.providers[1].dialect, Dialect::Anthropic);
    assert_eq!(config.providers[3].zone, RemoteZone::Site);
    assert!(
        config.providers[3].models[0].auto,
        "the first one is for auto"
    );
}

#[test]
fn providers_of_every_dialect() {
    let text = r#"
[providers.gemini]
key_env = "G"
[providers.vertex]
base_url = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google"
key_env = "V"
[providers.bedrock]
key_env = "B"
[providers.mine]
preset = "azure"
base_url = "https://r.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21"
key_env = "A"
[providers.lent]
preset = "mistral"
base_url = "https://proxy.example/v1"
auth = "x-api-key"
[providers.moved]
dialect = "gemini"
base_url = "http://127.0.0.1:9/v1beta"
"#;
    let all = parse(text).unwrap().providers;
    let got: Vec<_> = all.iter().map(|p| (p.dialect, p.auth)).collect();
    assert_eq!(
        got,
        [
            (Dialect::Gemini, Auth::XGoogApiKey),
            (Dialect::Gemini, Auth::Bearer),
            (Dialect::Bedrock, Auth::Aws),
            (Dialect::Openai, Auth::ApiKey),
            (Dialect::Openai, Auth::XApiKey),
            (Dialect::Gemini, Auth::XGoogApiKey),
        ]
    );
    assert!(!all[3].habits.sampling_extras, "told by the host");
    assert!(!all[4].habits.stream_options, "lent by the preset");
    let said = errors("[providers.x]\nbase_url = \"https://a\"\nauth = \"barer\"\n");
    assert!(said.contains("did you mean \"bearer\"?"), "{said}");
    for section in ["azure", "vertex", "nearfar"] {
        let said = errors(&format!("[providers.{section}]\n"));
        assert!(said.contains("this provider has no address"), "{said}");
    }
    for query in [
        "?key=secret",
        "?",
        "?api-version=",
        "?api-version=1&x=2",
        "#x",
    ] {
        let said = errors(&format!(
            "[providers.x]\nbase_url = \"https://a/v1{query}\"\n"
        ));
        assert!(said.contains("no query"), "{query}: {said}");
    }
}

#[test]
fn every_error_is_told_at_once_with_its_place() {
    let text = r#"state_dir = 5
[server]
listne = ["127.0.0.1:1"]
listen = ["0.0.0.0:4141", "here"]
drain = "10 parsecs"
body_timeout = 30
max_requests = 0

[privacy]
default = "cluod"

[providers.local]
base_url = "https://example.com"

[providers.lan]
base_url = "http://example.com/v1"
open_list = "yes"

[[providers.lan.models]]
tools = true
price = { prompt = 1 }
"#;
    let expected = r#"/etc/nearfar/nearfar.toml:1:13: `state_dir` must be a text, not a whole number
 1 | state_dir = 5
   |             ^
   mend: write it in quotes

/etc/nearfar/nearfar.toml:3:1: there is no key `listne` in [server]
 3 | listne = ["127.0.0.1:1"]
   | ^^^^^^
   mend: did you mean `listen`?

/etc/nearfar/nearfar.toml:4:27: this is not an address with a port
 4 | listen = ["0.0.0.0:4141", "here"]
   |                           ^^^^^^
   mend: write it like "127.0.0.1:4141" or "[::1]:4141"

/etc/nearfar/nearfar.toml:5:9: `server.drain` is not a duration
 5 | drain = "10 parsecs"
   |         ^^^^^^^^^^^^
   mend: write a number with a unit (ms, s, m, h, d), like "5s", "250ms" or "1h30m"

/etc/nearfar/nearfar.toml:6:16: `server.body_timeout` has no unit
 6 | body_timeout = 30
   |                ^^
   mend: write "30s" or "30ms"

/etc/nearfar/nearfar.toml:7:16: `server.max_requests` is out of range
 7 | max_requests = 0
   |                ^
   mend: write a whole number from 1 to 65536

/etc/nearfar/nearfar.toml:10:11: `cluod` is not a zone
 10 | default = "cluod"
    |           ^^^^^^^
   mend: did you mean "cloud"?

/etc/nearfar/nearfar.toml:12:12: the name `local` is this device's own
 12 | [providers.local]
    |            ^^^^^
   mend: give the provider another name, like [providers.lan]

/etc/nearfar/nearfar.toml:16:12: prompts and keys would travel unencrypted: http is for loopback, private networks and zone "site"
 16 | base_url = "http://example.com/v1"
    |            ^^^^^^^^^^^^^^^^^^^^^^^
   mend: write https://, or zone = "site" for a server of your own network

/etc/nearfar/nearfar.toml:17:13: `providers.lan.open_list` must be true or false, not a text
 17 | open_list = "yes"
    |             ^^^^^
   mend: write true or false

/etc/nearfar/nearfar.toml:19:1: a model has no name
 19 | [[providers.lan.models]]
    | ^^^^^^^^^^^^^^^^^^^^^^^^
   mend: write name = "…", as the provider calls the model

/etc/nearfar/nearfar.toml:21:1: a price needs `prompt` and `completion`
 21 | price = { prompt = 1 }
    | ^^^^^
   mend: write price = { prompt = 0.15, completion = 0.60 }, in currency units per million tokens, or leave the price out
"#;
    let said = errors(text);
    assert_eq!(said, expected, "\n{said}");
}

#[test]
fn broken_toml_is_told_with_the_errors_beside_it() {
    let said = errors("[server]\nlisten = [\"127.0.0.1:4141\"\ndrain = \"1s\"\n\n[locall]\n");
    assert!(said.contains("nearfar.toml:"), "{said}");
    assert!(said.contains("not TOML"), "{said}");
    let said = errors("[privacy]\ndefault = \"cloud\"\ndefault = \"site\"\n[locall]\n");
    assert!(
        said.contains("nearfar.toml:3:1: not TOML: duplicate key"),
        "{said}"
    );
    assert!(said.contains("did you mean `local`?"), "{said}");
}

#[test]
fn a_key_in_the_file_is_refused_and_never_repeated() {
    for line in [
        "api_key = \"sk-proj-1234567890abcdef\"",
        "key = \"hunter2hunter2\"",
        "key_env = \"sk-proj-1234567890abcdef\"",
        "key_file = \"gsk_1234567890abcdef\"",
        "base_url = \"https://user:hunter2@example.com/v1\"",
        "token = hunter2",
        "key_env = \"a key with spaces hunter2\"",
        "\"sk-proj-1234567890abcdef\" = true",
    ] {
        let said = errors(&format!("[providers.openai]\n{line}\n"));
        assert!(said.contains(":2:"), "{said}");
        for secret in ["1234567890", "hunter2hunter2", "user:hunter2"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    let said = errors("[providers.openai]\napi_key = \"x12\"\n");
    assert!(said.contains("key_file ="), "{said}");
}

#[test]
fn presets_fill_what_the_file_leaves_open() {
    let config = parse(
        "[providers.work]\npreset = \"openai\"\nkey_env = \"WORK_KEY\"\n\
         [[providers.work.models]]\nname = \"gpt-4o-mini\"\nvision = false\n\
         [[providers.work.models]]\nname = \"new\"\n",
    )
    .unwrap();
    let work = &config.providers[0];
    assert_eq!(work.name, "work");
    assert_eq!(work.base_url, "https://api.openai.com/v1");
    assert_eq!(work.key, KeySource::Env("WORK_KEY".to_owned()));
    let known = &work.models[0];
    assert!(known.capabilities.tools && !known.capabilities.vision);
    assert!(known.auto && work.preset.as_deref() == Some("openai"));
    let new = &work.models[1];
    assert!(!new.auto && !new.capabilities.tools && new.price.is_none());
    let said = errors("[providers.x]\npreset = \"opnai\"\n");
    assert!(said.contains("did you mean \"openai\"?"), "{said}");
    let said = errors("[providers.x]\n");
    assert!(
        said.contains("1:12: this provider has no address"),
        "{said}"
    );
}

#[test]
fn the_environment_adds_what_the_file_does_not_configure() {
    let overrides = Overrides {
        state_dir: "/state".into(),
        env_providers: vec!["openai".into(), "anthropic".into(), "no-such".into()],
        ..Overrides::default()
    };
    let config = Config::parse("", None, &overrides).unwrap();
    let names: Vec<_> = config.providers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["openai", "anthropic"]);
    let text = "[providers.claude]\npreset = \"anthropic\"\n";
    let config = Config::parse(text, None, &overrides).unwrap();
    let names: Vec<_> = config.providers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["claude", "openai"]);
}

#[test]
fn paths_start_where_the_file_lies() {
    let config = Config::parse(
        "state_dir = \"state\"\n[providers.openai]\nkey_file = \"keys/openai\"\n",
        Some(Path::new("/srv/box/nearfar.toml")),
        &Overrides::default(),
    )
    .unwrap();
    assert_eq!(config.state_dir, Path::new("/srv/box/state"));
    assert_eq!(
        config.providers[0].key,
        KeySource::File("/srv/box/keys/openai".into())
    );
    let said = errors("credentials_dir = \"~/keys\"\n");
    assert!(said.contains("write the whole path"), "{said}");
}

#[test]
fn the_command_line_wins_and_is_checked_too() {
    let overrides = Overrides {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        state_dir: "/state".into(),
        ..Overrides::default()
    };
    let text = "state_dir = \"/other\"\n[server]\nlisten = [\"[::1]:1\", \"localhost:2\"]\n";
    let config = Config::parse(text, None, &overrides).unwrap();
    assert_eq!(config.server.listen, overrides.listen);
    assert_eq!(config.state_dir, Path::new("/state"));
    let config = parse(text).unwrap();
    assert_eq!(config.server.listen.len(), 2);
    let wide = Overrides {
        listen: vec!["192.168.0.1:80".parse().unwrap()],
        ..Overrides::default()
    };
    let config = Config::parse("", None, &wide).unwrap();
    let address = |text: &str| Some(text.parse().unwrap());
    assert!(config.access.requires_key(address("192.168.0.1")));
    assert!(!config.access.requires_key(address("127.0.0.1")));
    assert!(!config.access.requires_key(None));
    let open = "[access]\nrequire_key = false\n";
    let said = Config::parse(open, None, &wide).err().unwrap().to_string();
    assert!(
        said.starts_with("configuration:2:1: 192.168.0.1:80 can be reached"),
        "{said}"
    );
    let closed = parse("[access]\nrequire_key = true\n").unwrap();
    assert!(closed.access.requires_key(None));
}

#[test]
fn tenants_are_read_with_what_they_may_use() {
    let config = parse(
        "[tenants.acme]\nname = \"Acme Inc.\"\ntier = \"gold\"\ntargets = [\"local/*\"]\n\
         zones = [\"device\", \"site\"]\nfeature = \"kiosk\"\nprivacy = \"site\"\n\
         [tenants.default]\nprivacy = \"device\"\n",
    )
    .unwrap();
    let acme = &config.tenants["acme"];
    assert_eq!(acme.display_name.as_deref(), Some("Acme Inc."));
    assert_eq!(acme.tier.as_deref(), Some("gold"));
    assert_eq!(acme.grant.zones, Some(vec![Zone::Device, Zone::Site]));
    assert_eq!(acme.privacy, Some(Zone::Site));
    assert!(config.tenants["default"].grant.is_open());
    for (text, what) in [
        ("[tenants.\"a b\"]\n", "1:10: this is not a tenant's name"),
        ("[tenants.a]\ntargets = []\n", "leave it out to allow all"),
        (
            "[tenants.a]\ntargets = [\"gpt-4o\"]\n",
            "2:12: this is no pattern",
        ),
        (
            "[tenants.a]\nzones = [\"devise\"]\n",
            "did you mean \"device\"?",
        ),
        ("[tenants.a]\nprivacy = \"moon\"\n", "is not a zone"),
        ("[tenants.a]\ntarget = 3\n", "did you mean `targets`?"),
        ("tenants = 3\n", "write a section [tenants]"),
        (
            "[access]\nrequire_keys = true\n",
            "did you mean `require_key`?",
        ),
    ] {
        let said = errors(text);
        assert!(said.contains(what), "{text}\n{said}");
    }
}

#[test]
fn an_empty_list_of_addresses_leaves_the_unix_socket() {
    assert!(
        parse("[server]\nlisten = []\n")
            .unwrap()
            .server
            .listen
            .is_empty()
    );
}

#[test]
fn units_ranges_and_places_of_providers() {
    let config = parse(
        "[server]\nmax_body_bytes = \"1MiB\"\ndrain = \"0s\"\nkeep_answers = \"0s\"\n[limits]\nconnect = \"250ms\"\n\
         total = \"1h30m\"\nretries = 0\nretry_pause = \"1s\"\n[local]\ndefault_model = \"local/qwen3:0.6b\"\nthreads = 2\n",
    )
    .unwrap();
    assert_eq!(config.server.max_body_bytes, 1 << 20);
    assert_eq!(config.server.drain, Duration::ZERO);
    assert_eq!(config.server.keep_answers, Duration::ZERO);
    assert_eq!(config.limits.connect_ms, 250);
    assert_eq!(config.limits.total_ms, 5_400_000);
    let retries = Retries {
        most: 0,
        longest_pause: Duration::from_secs(1),
        around_refusals: false,
    };
    assert_eq!(config.retries, retries);
    assert_eq!(config.local.default_model.as_deref(), Some("qwen3:0.6b"));
    for (text, what) in [
        ("[limits]\nidle = \"2d\"\n", "a duration from 1ms to 1h"),
        (
            "[server]\nmax_body_bytes = \"2GiB\"\n",
            "a size from 1.0 KiB to 1.0 GiB",
        ),
        ("[local]\nthreads = -1\n", "a whole number from 1 to 512"),
        ("[local]\ndefault_model = \"a b\"\n", "nearfar model list"),
        ("[local]\ndevice = \"gpu\"\n", "cuda:0"),
        ("[local]\ndevice_layers = 1000\n", "from 0 to 512"),
        (
            "[providers.x]\nbase_url = \"https://a/v1\"\nzone = \"device\"\n",
            "write \"site\"",
        ),
        (
            "[providers.x]\nbase_url = \"http://8.8.8.8/v1\"\nzone = \"site\"\n",
            "unencrypted",
        ),
        (
            "[providers.auto]\nbase_url = \"https://a\"\n",
            "give the provider another name",
        ),
        (
            "[providers.\"A b\"]\nbase_url = \"https://a\"\n",
            "rename the section",
        ),
        (
            "[providers.x]\nbase_url = \"https://a\"\nopen_list = false\n",
            "open_list = true",
        ),
        (
            "[providers.openai]\nkey_env = \"A\"\nkey_file = \"/b\"\n",
            "keep one of",
        ),
        (
            "[providers.openai]\nkey_credential = \"../b\"\n",
            "bare name",
        ),
        ("[privacy.features]\nvoice = 3\n", "write it in quotes"),
        ("server = 3\n", "write a section [server]"),
        (
            "[providers.openai]\nmodels = 3\n",
            "[[providers.openai.models]]",
        ),
    ] {
        let said = errors(text);
        assert!(said.contains(what), "{text}\n{said}");
    }
}

#[test]
fn what_is_something_else_altogether_is_cut_short() {
    let noise: String = (0..500).map(|n| format!("key{n} = {n}\n")).collect();
    let said = parse(&noise).err().unwrap();
    assert_eq!(said.errors.len(), 101);
    assert!(said.to_string().contains("400 further errors"));
    let huge = "#".repeat((1 << 20) + 1);
    assert!(errors(&huge).contains("larger than 1 MiB"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text).map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_file_of_our_words_panics(
        lines in proptest::collection::vec(
            (
                prop::sample::select(vec![
                    "[server]", "[providers.x]", "[[providers.x.models]]", "[privacy.features]",
                    "listen", "base_url", "price", "name", "zone", "drain", "max_body_bytes",
                    "default", "models", "threads", "preset", "key_env", "é", "a.b",
                ]),
                prop::sample::select(vec![
                    "", " = 1", " = -9223372036854775808", " = 0xFFFFFFFFFFFFFFFFFF", " = 1e400",
                    " = nan", " = \"5s\"", " = []", " = [[]]", " = {a = 1}", " = \"http://[\"",
                    " = \"\"", " = '''\nx\n'''", " = 1979-05-27", " =", " = \"\\u0000\"", " = true",
                    " = {prompt = -1, completion = inf}", " = \"é:1\"",
                ]),
            ),
            0..12,
        )
    ) {
        let text: String = lines.iter().map(|(a, b)| format!("{a}{b}\n")).collect();
        let _ = parse(&text).map_err(|errors| errors.to_string());
    }

    #[test]
    fn a_cut_or_mangled_example_never_panics(at in 0usize..4000, len in 0usize..60, byte in any::<char>()) {
        let mut text = EXAMPLE.to_owned();
        let floor = |mut at: usize| { at = at.min(EXAMPLE.len()); while !EXAMPLE.is_char_boundary(at) { at -= 1; } at };
        text.replace_range(floor(at)..floor(at + len), &byte.to_string());
        let _ = parse(&text).map_err(|errors| errors.to_string());
    }
}
