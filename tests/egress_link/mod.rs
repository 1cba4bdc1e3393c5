//! Egress as a whole, over the frames that the gate sends, against the
//! provider double: every way of answering and every way of failing.

mod answers;
mod behaviour;
mod connect;
mod faults;
mod rig;
