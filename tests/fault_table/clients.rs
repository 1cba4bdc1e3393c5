//! What a client of OpenAI's API makes of a reply.

use serde_json::Value;

use crate::support::wire::Reply;

/// An answer as its client sees it.
#[derive(Debug, Default)]
pub(super) struct Saw {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) calls: usize,
    pub(super) finishes: Vec<String>,
    pub(super) done: usize,
    pub(super) error: Option<String>,
    pub(super) continued_on: Vec<String>,
    pub(super) target: String,
}

impl Saw {
    pub(super) fn of(reply: &Reply) -> Self {
        assert!(reply.whole, "the daemon's own reply is cut: {reply:?}");
        let header = |name: &str| reply.header(name).unwrap_or_default().to_owned();
        let mut saw = Self {
            status: reply.status,
            target: header("x-nearfar-target"),
            ..Self::default()
        };
        if !header("content-type").starts_with("text/event-stream") {
            saw.object(&reply.json());
            return saw;
        }
        for line in reply.body.lines() {
            match line.strip_prefix("data: ") {
                Some("[DONE]") => saw.done += 1,
                Some(data) => saw.object(&serde_json::from_str(data).unwrap()),
                None => {}
            }
        }
        saw
    }

    fn object(&mut self, object: &Value) {
        if let Some(error) = object.get("error") {
            let code = error["code"].as_str().or(error["type"].as_str());
            self.error = Some(code.unwrap_or("error").to_owned());
            assert!(
                error["message"]
                    .as_str()
                    .is_some_and(|text| text.len() > 10)
            );
        }
        for choice in object["choices"].as_array().into_iter().flatten() {
            for part in [&choice["delta"], &choice["message"]] {
                self.text
                    .push_str(part["content"].as_str().unwrap_or_default());
                self.calls += part["tool_calls"].as_array().map_or(0, Vec::len);
            }
            let reason = choice["finish_reason"].as_str();
            self.finishes.extend(reason.map(str::to_owned));
        }
        let names = object["nearfar"]["continued_on"].as_array();
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        self.continued_on.extend(names.map(str::to_owned));
    }

    /// In words, for the table.
    pub(super) fn words(&self) -> String {
        let mut words = match (&self.error, self.status, self.text.is_empty()) {
            (Some(code), 200, _) => {
                let what = if self.calls > 0 { "a call" } else { "the text" };
                format!("{what} as far as it came, then the error `{code}` in the stream")
            }
            (Some(code), status, _) => format!("{status}, `{code}`"),
            (None, ..) => "the whole answer".to_owned(),
        };
        if let [only] = self.finishes.as_slice()
            && only != "stop"
        {
            words.push_str(&format!(", finish reason `{only}`"));
        }
        if let Some(last) = self.continued_on.last() {
            let same = *last == self.target;
            words.push_str(if same {
                ", gone on with by the same provider"
            } else {
                ", gone on with by the second provider"
            });
        } else if self.error.is_none() && self.target.starts_with("second") {
            words.push_str(", from the second provider");
        }
        words
    }
}
