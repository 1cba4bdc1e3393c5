//! Tool calls in the order that clients rely on, from whatever order providers
//! send: indexes from 0 without gaps, id and name in the first fragment only.

use nearfar_domain::events::{Event, ToolCallDelta};

/// A turn makes at most so many calls; more are a fault of the provider.
const MAX_CALLS: usize = 1_024;
/// Arguments that wait for a call's name are bounded, in bytes.
const MAX_PENDING: usize = 1 << 20;

/// What the fragments of a turn cannot be.
pub(super) struct Disorder(pub(super) &'static str);

/// The calls of one turn.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    /// How many were given out: the next index.
    given: u32,
}

struct Call {
    /// The provider's index, where it gives one.
    key: Option<i64>,
    id: String,
    /// Ours, once the call was given out.
    index: Option<u32>,
    /// Arguments that came before the name.
    pending: String,
    /// Whether any argument was given out.
    spoke: bool,
}

/// One fragment as the provider sent it.
pub(super) struct Fragment {
    pub(super) key: Option<i64>,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

impl Calls {
    /// Whether there were any.
    pub(super) fn any(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Takes a fragment and appends what can be given out. `fallback` makes an
    /// id for a call that has none.
    pub(super) fn push(
        &mut self,
        fragment: Fragment,
        fallback: impl Fn(u32) -> String,
        out: &mut Vec<Event>,
    ) -> Result<(), Disorder> {
        let id = fragment.id.filter(|id| !id.is_empty());
        let name = fragment.name.filter(|name| !name.is_empty());
        let place = self.place(fragment.key, id.as_deref(), name.is_some())?;
        let call = &mut self.calls[place];
        if call.id.is_empty()
            && let Some(id) = id
        {
            call.id = id;
        }
        match (call.index, name) {
            (Some(index), _) => {
                if !fragment.arguments.is_empty() {
                    call.spoke = true;
                    out.push(delta(index, None, None, fragment.arguments));
                }
            }
            (None, Some(name)) => {
                let index = self.given;
                self.given += 1;
                call.index = Some(index);
                if call.id.is_empty() {
                    call.id = fallback(index);
                }
                let mut arguments = std::mem::take(&mut call.pending);
                arguments.push_str(&fragment.arguments);
                call.spoke = !arguments.is_empty();
                out.push(delta(index, Some(call.id.clone()), Some(name), arguments));
            }
            (None, None) => {
                if call.pending.len() + fragment.arguments.len() > MAX_PENDING {
                    return Err(Disorder("a tool call's arguments come without its name"));
                }
                call.pending.push_str(&fragment.arguments);
            }
        }
        Ok(())
    }

    /// The turn is over: calls without arguments get an empty object, which is
    /// what they mean and what clients parse.
    pub(super) fn finish(&mut self, out: &mut Vec<Event>) -> Result<(), Disorder> {
        for call in &mut self.calls {
            let Some(index) = call.index else {
                return Err(Disorder("a tool call has no name"));
            };
            if !std::mem::replace(&mut call.spoke, true) {
                out.push(delta(index, None, None, "{}".to_owned()));
            }
        }
        Ok(())
    }

    /// Which call a fragment belongs to; a new one where it begins one.
    fn place(
        &mut self,
        key: Option<i64>,
        id: Option<&str>,
        named: bool,
    ) -> Result<usize, Disorder> {
        let found = match (key, id) {
            // The latest under this index. Another id with a name under the
            // same index is another call: some count every call as 0.
            (Some(key), id) => self
                .calls
                .iter()
                .rposition(|call| call.key == Some(key))
                .filter(|at| {
                    let have = &self.calls[*at].id;
                    !(named && !have.is_empty() && id.is_some_and(|id| id != have))
                }),
            (None, Some(id)) => self.calls.iter().rposition(|call| call.id == id),
            // Without index and id a name begins a call, all else goes on.
            (None, None) if named => None,
            (None, None) => self.calls.len().checked_sub(1),
        };
        if let Some(at) = found {
            return Ok(at);
        }
        if self.calls.len() == MAX_CALLS {
            return Err(Disorder("too many tool calls"));
        }
        self.calls.push(Call {
            key,
            id: String::new(),
            index: None,
            pending: String::new(),
            spoke: false,
        });
        Ok(self.calls.len() - 1)
    }
}

fn delta(index: u32, id: Option<String>, name: Option<String>, arguments: String) -> Event {
    Event::ToolCall(ToolCallDelta {
        index,
        id,
        name,
        arguments,
    })
}
