//! Small talk: what guests say besides questions, and what the desk answers.

use crate::rng::Rng;
use crate::split::{Split, phrase};

/// One kind of small talk.
#[derive(Debug)]
pub struct Chat {
    /// What guests say.
    pub says: &'static [&'static str],
    /// What the desk answers; `{}` is the venue's name, answers with it need a named venue.
    pub replies: &'static [&'static str],
    /// Any of these words shows that the answer fits.
    pub shows: &'static [&'static str],
    /// Whether it may open a conversation.
    pub opens: bool,
    /// Ends with a question mark.
    pub question: bool,
}

/// Every kind of small talk.
pub const CHATS: &[Chat] = &[
    Chat {
        says: &["hello", "hi", "hey", "good morning", "good evening", "hi there", "hello there", "good afternoon", "hey there", "hi good morning", "hello is anyone there", "anybody here", "greetings", "morning", "hello reception", "!hiya", "!good day to you", "!evening", "!hello hello"],
        replies: &["Hello! How can I help you?", "Welcome to {}! How can I help you?", "Hello and welcome! What can I do for you?"],
        shows: &["help", "what can i do"],
        opens: true,
        question: false,
    },
    Chat {
        says: &["thanks", "thank you", "thank you so much", "great thanks", "ok thanks a lot", "perfect thank you", "thanks for your help", "that's very kind thank you", "many thanks", "cool thanks", "awesome thank you", "thanks that helps", "ok great thank you", "!much appreciated", "!cheers thanks mate", "!thanks a bunch", "!thank you kindly"],
        replies: &["You're welcome!", "You're welcome! Is there anything else?", "My pleasure!"],
        shows: &["welcome", "pleasure"],
        opens: false,
        question: false,
    },
    Chat {
        says: &["bye", "goodbye", "see you later", "ok bye", "have a nice day", "that's all thanks bye", "see you", "good night", "bye bye", "i have to go now bye", "talk to you later", "have a good one", "!farewell", "!catch you later", "!i'm off now bye bye", "!so long"],
        replies: &["Goodbye, have a nice day!", "Goodbye! Enjoy your day!"],
        shows: &["bye"],
        opens: false,
        question: false,
    },
    Chat {
        says: &["who are you", "what are you", "what's your name", "who am i talking to", "are you the receptionist", "who is this", "do you have a name", "can you introduce yourself", "tell me who you are", "who do i have the pleasure with", "what should i call you", "!may i ask who you are", "!with whom am i speaking", "!who's there", "!introduce yourself please"],
        replies: &["I'm the concierge, the front desk assistant.", "I'm the front desk assistant of {}."],
        shows: &["assistant"],
        opens: true,
        question: true,
    },
    Chat {
        says: &["are you a robot", "are you human", "are you a real person", "am i talking to a machine", "is this a computer", "are you an AI", "are you real", "is this a bot", "do i talk to a human", "!is there a human behind this", "!you're not a person are you"],
        replies: &["I'm a computer assistant, not a person, but I'm happy to help.", "I'm a small computer assistant. I can ask the staff if you prefer a person."],
        shows: &["computer"],
        opens: true,
        question: true,
    },
    Chat {
        says: &["how are you", "how are you doing", "how's it going", "how are you today", "you alright", "how do you do", "everything good", "what's up", "how is your day", "!how are things", "!are you having a good day", "!how have you been"],
        replies: &["I'm doing well, thank you! How can I help you?", "Very well, thank you! What can I do for you?"],
        shows: &["well"],
        opens: true,
        question: true,
    },
    Chat {
        says: &["what can you do", "what can i ask you", "how can you help me", "what do you know", "what are you good for", "can you help me", "i need help", "i have a question", "can i ask you something", "could you help me with something", "!what sort of things can you help with", "!what are you able to do", "!i need some assistance", "!mind if i ask you something"],
        replies: &["Of course! I can answer questions about the house. What would you like to know?", "I can help with questions about the house. What would you like to know?"],
        shows: &["what would you like to know", "help"],
        opens: true,
        question: true,
    },
    Chat {
        says: &["you're very helpful", "you are great", "nice", "wonderful", "great", "good to know", "perfect", "ok", "alright", "cool", "awesome", "sounds good", "okay got it", "i see", "ah ok", "very good", "i love it here", "this place is beautiful", "!splendid", "!super", "!fair enough", "!you're a star"],
        replies: &["Great! Is there anything else I can do for you?", "Glad to help! Is there anything else?"],
        shows: &["anything else"],
        opens: false,
        question: false,
    },
    Chat {
        says: &["wait a second", "hold on", "one moment", "just a minute", "wait wait", "hang on", "give me a second", "let me think", "!bear with me", "!one sec please"],
        replies: &["Of course, take your time.", "Sure, take your time."],
        shows: &["time"],
        opens: false,
        question: false,
    },
    Chat {
        says: &["never mind", "forget it", "it's nothing", "no thanks", "no that's all", "no thank you", "nothing else", "i'm good", "that's everything", "nope", "no i'm fine", "!don't bother", "!we're all set", "!ignore that"],
        replies: &["Alright! Just ask if you need anything.", "No problem! Just ask if you need anything."],
        shows: &["just ask", "need anything"],
        opens: false,
        question: false,
    },
    Chat {
        says: &["sorry", "i'm sorry", "oh sorry my mistake", "excuse me for bothering you", "sorry to bother you", "pardon me", "!my apologies", "!forgive me"],
        replies: &["No problem at all. How can I help you?"],
        shows: &["no problem"],
        opens: true,
        question: false,
    },
    Chat {
        says: &["what", "huh", "asdf", "mmh", "eh", "blah blah", "the the uh", "can you hear me", "test test", "one two three", "hm the thing with the", "!pardon what", "!uh uh uh", "!what what"],
        replies: &["Sorry, I didn't understand that. Could you say it again?"],
        shows: &["understand"],
        opens: true,
        question: false,
    },
    Chat {
        says: &["tell me a joke", "do you know a joke", "make me laugh", "say something funny", "i'm bored", "!got any jokes", "!cheer me up"],
        replies: &["Why did the key go to school? To open doors! Can I help you with anything else?"],
        shows: &["key"],
        opens: true,
        question: false,
    },
];

/// A text, its reply and the words that show that a reply fits.
pub fn chat(rng: &mut Rng, split: Split, opening: bool, venue: Option<&str>) -> (String, bool, String, &'static Chat) {
    loop {
        let chat = rng.pick(CHATS);
        if opening && !chat.opens {
            continue;
        }
        let reply = *rng.pick(chat.replies);
        let reply = match venue {
            Some(name) => reply.replace("{}", name),
            None if reply.contains("{}") => chat.replies[0].to_owned(),
            None => reply.to_owned(),
        };
        return (phrase(split, rng, chat.says).to_owned(), chat.question, reply, chat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_shows_that_it_fits() {
        for chat in CHATS {
            for reply in chat.replies {
                let low = reply.to_lowercase();
                assert!(chat.shows.iter().any(|w| low.contains(w)) || low.contains("what can i do"), "{reply}");
            }
            assert!(!chat.replies[0].contains("{}"), "the first reply must not need a name");
        }
    }
}
