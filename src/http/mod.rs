//! What clients speak: listeners, routes, dialects and errors.
