//! The reference's quirks by number, and what each mode makes of them: the one place that `docs/src/reference/compat.md` is written from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use Modes::{Always, Switched};

/// What the modes make of a quirk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// The same in every mode.
    Always(&'static str),
    /// Each mode has its way, and `quirks` chooses among them.
    Switched {
        /// In `paper`.
        paper: &'static str,
        /// In `repo-head`.
        repo_head: &'static str,
        /// In `pypi-0.1.4`.
        pypi: &'static str,
        /// In `fixed`.
        fixed: &'static str,
    },
}

/// A quirk as the documentation tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is in a few words.
    pub title: &'static str,
    /// What the reference does.
    pub what: &'static str,
    /// What the modes make of it.
    pub modes: Modes,
}

macro_rules! quirks {
    ($($(#[$doc:meta])* $quirk:ident = ($title:literal, $what:literal, $modes:expr);)*) => {
        /// A quirk of the reference (its section 2.9): a place where a faithful and a sound program differ.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Quirk {
            $($(#[$doc])* $quirk,)*
        }

        impl Quirk {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$quirk),*];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The number as pipelines spell it: `Q5`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$quirk => stringify!($quirk),)*
                }
            }

            /// What it is, and what the modes make of it.
            pub const fn entry(self) -> Entry {
                match self {
                    $(Self::$quirk => Entry { title: $title, what: $what, modes: $modes },)*
                }
            }
        }
    };
}

quirks! {
    /// Fields of a looked-up record shift by position.
    Q1 = ("fields of a looked-up record shift by position", "A booking that lacks its entity takes it from the first record that the goal's search finds. The reference names that record's fields by their position in the SQLite table, while JSON records have another order: a train's id becomes its arrival time, a hotel's name its postcode.",
        Switched { paper: "fields keep their names", repo_head: "fields are named by position", pypi: "as `repo-head`", fixed: "fields keep their names" });
    /// A list of failing results is rebuilt and never used.
    Q2 = ("a list of failing results is rebuilt and never used", "Dead code in the conversion.",
        Always("Left out: it has no effect."));
    /// What must fail can be found.
    Q3 = ("what must fail can be found", "The customer's story says that a first search finds nothing. October's code works out which records would have to go for that, and throws the result away.",
        Switched { paper: "records that answer the failing search are hidden in that dialogue", repo_head: "they stay findable", pypi: "as `repo-head`", fixed: "hidden, as in `paper`" });
    /// Hiding what must fail hides what is wanted.
    Q4 = ("hiding what must fail hides what is wanted", "Records that answer the failing search may answer the successful one too, or be the entity that is booked. Shows only where quirk Q3 hides at all.",
        Switched { paper: "they are hidden with the rest", repo_head: "as `paper`, where Q3 hides", pypi: "as `paper`, where Q3 hides", fixed: "records that the goal needs stay findable" });
    /// Apostrophes.
    Q5 = ("apostrophes", "The server deletes apostrophes from arguments and keeps them in records and goals, so that `christ's college` is never found. October's search also doubles them, which the conversion feels.",
        Switched { paper: "deleted from arguments only", repo_head: "deleted from arguments only; doubled where the conversion searches", pypi: "as `repo-head`", fixed: "straight and typographic apostrophes are ignored on both sides" });
    /// Capitals and spelling.
    Q6 = ("capitals and spelling", "The server puts arguments into lower case; records and booked entities keep their capitals and are compared as they are.",
        Switched { paper: "lower case for arguments only", repo_head: "as `paper`", pypi: "as `paper`", fixed: "case, blanks and spellings that mean the same (`center`, `guest house`, `&`) are ignored on both sides" });
    /// Times of day.
    Q7 = ("times of day", "Departure and arrival bound a train strictly, in the order of the texts: `09:00` does not leave from `09:00` on, and `9:45` is later than `10:00`.",
        Switched { paper: "strictly later or earlier, as texts", repo_head: "as `paper`", pypi: "as `paper`", fixed: "read on the clock (`9:45`, `09:45:00`, `9.45 am`), the limit included" });
    /// What means anything.
    Q8 = ("what means anything", "Six texts in exactly their spelling constrain nothing. `any`, `Dontcare` and null are constraints like others.",
        Switched { paper: "six exact texts", repo_head: "as `paper`", pypi: "as `paper`", fixed: "every spelling of not caring, and null" });
    /// Numbers are no texts.
    Q9 = ("numbers are no texts", "An argument that is no text constrains no search and equals no wanted value: a booking for `4` people instead of `\"4\"` is refused.",
        Switched { paper: "only texts are compared", repo_head: "as `paper`", pypi: "as `paper`", fixed: "numbers, number words up to twelve and truth values are read as the records spell them" });
    /// Which record misleads.
    Q10 = ("which record misleads", "An agent that asks for less than the customer wants gets a record that the customer does not want.",
        Switched { paper: "the last record with any field unequal to the goal's, times included", repo_head: "as `paper`", pypi: "as `paper`", fixed: "the first record that breaks a constraint and is not the booked entity; of records with the booked id, the one that fits the goal" });
    /// Bookings that the corpus does not record.
    Q11 = ("bookings that the corpus does not record", "454 goals ask for a booking that the dialogue does not record. No call of the task stands for it.",
        Switched { paper: "left out without a word", repo_head: "as `paper`", pypi: "as `paper`", fixed: "left out with a warning that counts them; `unrecorded_bookings` of `toolwoz.convert` decides otherwise" });
    /// A refused booking counts.
    Q12 = ("a refused booking counts", "A booking is judged by its arguments alone, even where the server refused it.",
        Switched { paper: "the arguments decide", repo_head: "as `paper`", pypi: "as `paper`", fixed: "the server must have granted it" });
    /// A booking makes its search easier.
    Q13 = ("a booking makes its search easier", "The search tree deletes a goal once it is reached. With the booking gone, the search of that domain needs no longer serve the booked entity.",
        Switched { paper: "judged as if nothing were booked", repo_head: "as `paper`", pypi: "as `paper`", fixed: "judged by the full goals" });
    /// Further calls cost nothing.
    Q14 = ("further calls cost nothing", "The reward counts what was reached and never what was tried: a booking may be guessed without a search.",
        Always("Kept in every mode: rewards stay comparable with published ones."));
    /// The test split is the first 450 names.
    Q15 = ("the test split is the first 450 names", "The names are sorted, so that only dialogues of two domains are among them.",
        Always("Not decided by a mode: `split` of the stages that choose tasks is `test` (the first 450), `full_test`, `stratified` or `solvable`."));
    /// One seed for all branches.
    Q16 = ("one seed for all branches", "Both children of a node get the run's own seed, so that on a server that honours seeds all siblings are the same.",
        Switched { paper: "the run's seed for every step", repo_head: "as `paper`", pypi: "as `paper`", fixed: "a seed for each dialogue, node, step and round" });
    /// A note of lost tries on finished leaves.
    Q17 = ("a note of lost tries on finished leaves", "When the last round of tries ends, the note that tries ran out is put on leaves that did answer in that round. Only in `paper` is a round one reply; later an agent's turn ends in the first of 20, and nothing is noted.",
        Switched { paper: "noted on unfinished leaves only, as the published trees show", repo_head: "noted on all leaves of the last round", pypi: "as `repo-head`", fixed: "noted on unfinished leaves only" });
    /// The leaf that ends the task.
    Q18 = ("the leaf that ends the task", "The leaf that reached the last goals is remembered. October's test takes only a leaf that found exactly one goal left. On ToolWOZ it decides nothing; it is kept for the recorded traces.",
        Switched { paper: "as `repo-head`", repo_head: "remembered when one goal was left", pypi: "remembered when its hits are all that was left", fixed: "as `pypi-0.1.4`" });
    /// Examples without an answer.
    Q19 = ("examples without an answer", "Recorded examples lose the messages behind the agent's last one. Where the agent has said nothing, something is recorded all the same.",
        Switched { paper: "the customer's last words are cut, but not those that end a dialogue; a root without an answer is recorded empty", repo_head: "trailing user messages are cut, what tools returned among them; of a list of nothing else one message stays", pypi: "as `repo-head`", fixed: "no example without a message of the agent" });
    /// A step that raised is judged.
    Q20 = ("a step that raised is judged", "An agent's step that raised an exception is still judged by the calls that it remembers, and may become the root.",
        Switched { paper: "judged", repo_head: "as `paper`", pypi: "as `paper`", fixed: "earns nothing, and what it reached is not blamed" });
    /// A goal reached twice in one turn.
    Q21 = ("a goal reached twice in one turn", "Deleting a goal a second time raises an exception that ends the dialogue's search. A turn on ToolWOZ reaches each goal once at most, so that it shows in recorded traces only.",
        Switched { paper: "does not arise where Q22 is `paper`; else the search stops", repo_head: "the search stops", pypi: "as `repo-head`", fixed: "what was reached is a set" });
    /// Goals of dead leaves are counted.
    Q22 = ("goals of dead leaves are counted", "The search goes on from the first leaf that reached something. In the paper's era the goals that any leaf of the step reached were deleted.",
        Switched { paper: "the goals of all leaves", repo_head: "the goals of the first leaf", pypi: "as `repo-head`", fixed: "as `repo-head`" });
    /// The user's end.
    Q23 = ("the user's end", "A user's message that ends the dialogue may also ask for something. The reference ends there, unless it is the very first message, whose end it ignores.",
        Switched { paper: "ended unanswered when the next step begins", repo_head: "ended unanswered at once", pypi: "as `repo-head`", fixed: "the agent answers first; the first message may end the dialogue" });
    /// An agent that ran out of replies is not told so.
    Q24 = ("an agent that ran out of replies is not told so", "The visible dialogue has an error line that the agent's own history lacks.",
        Always("Mended in every mode but `paper`, where the search notes it in both lists as a system message."));
    /// Labels of the guide user.
    Q25 = ("labels of the guide user", "The transcript that the guide user reads calls the agent `user` and the customer `agent`.",
        Always("Mended in every mode."));
    /// Reading what the agent wrote.
    Q26 = ("reading what the agent wrote", "Backslashes and line ends are deleted, commands are found inside words, braces are taken greedily.",
        Always("Mended in every mode."));
    /// Function calls.
    Q27 = ("function calls", "Only the first of parallel calls is run; bad arguments raise.",
        Always("Mended in every mode."));
    /// Examples of function calling lack their tools.
    Q28 = ("examples of function calling lack their tools", "A misspelled key.",
        Switched { paper: "no tools", repo_head: "no tools", pypi: "no tools", fixed: "examples that call functions carry the tools of input `world`" });
    /// The longest golden path is the last one.
    Q29 = ("the longest golden path is the last one", "The newer extraction compares with the length of a dictionary.",
        Switched { paper: "the first of the longest", repo_head: "the last of more than one message", pypi: "as `repo-head`", fixed: "as `paper`" });
    /// Examples lack the system prompt.
    Q30 = ("examples lack the system prompt", "The newer extraction adds none.",
        Switched { paper: "`system_prompt` stands before every chat", repo_head: "none: a `system_prompt` is refused", pypi: "as `repo-head`", fixed: "as `paper`" });
    /// Prompts under names that are gone.
    Q31 = ("prompts under names that are gone", "Scripts ask for prompts under old names.",
        Always("Does not arise: prompts are templates of the project."));
    /// A completion templated alone.
    Q32 = ("a completion templated alone", "The chat template is applied to prompt and completion apart, so that the completion begins with a second start of text.",
        Always("Mended in every mode: prompt and completion are encoded as one chat."));
    /// Examples cut without a word.
    Q33 = ("examples cut without a word", "The supervised training gives no length, and the library's default may cut all but the head of the system prompt.",
        Always("Mended in every mode: the length is a parameter, and what does not fit is counted or refused."));
    /// Loss on every token.
    Q34 = ("loss on every token", "The supervised training learns the customer's and the tools' texts too.",
        Always("Mended in every mode: the agent's own tokens alone are trained on."));
    /// KTO's reference point from one pair.
    Q35 = ("KTO's reference point from one pair", "A batch of one gives the KL term a single mismatched pair.",
        Always("Mended in every mode: the reference point is taken over a batch."));
    /// Few undesirable examples.
    Q36 = ("few undesirable examples", "Only a quarter of the good prompts have an undesirable answer; turns that succeeded without being golden are dropped; one pair is labelled both ways.",
        Switched { paper: "turns of the golden path, and last turns of failed paths on the same prompts; labels may contradict each other", repo_head: "as `paper`", pypi: "as `paper`", fixed: "a turn is bad where a failed path leaves with it all that succeeded; contradictions are dropped and counted; `good: successful` keeps what succeeded without being golden" });
    /// A local model cannot be loaded.
    Q37 = ("a local model cannot be loaded", "An attribute that does not exist, packages that are not required.",
        Always("Does not arise."));
    /// The result file is written anew after every dialogue.
    Q38 = ("the result file is written anew after every dialogue", "Its order is that of completion until the end.",
        Always("Does not arise: rows are journalled and stand in the order of the dialogues' names."));
    /// What records look like.
    Q39 = ("what records look like", "Records come from a data frame, so that a missing field is `NaN`, which is no JSON, and lists and objects leak.",
        Switched { paper: "the columns of the SQLite table, `NULL` where a field is missing", repo_head: "all columns, `NaN` where a field is missing", pypi: "as `repo-head`", fixed: "the fields that a record has, without lists and objects" });
    /// The significance test.
    Q40 = ("the significance test", "Called paired, resamples independently, one-sided.",
        Always("Not decided by a mode: `test` of `eval.compare` is `permutation`, `bootstrap` or `reference`."));
    /// Costs.
    Q41 = ("costs", "Every model is priced as gpt-4o and the output counted twice.",
        Always("Does not arise: tokens are those that the server reports."));
    /// Tau-bench.
    Q42 = ("tau-bench", "Several faults of its driver.",
        Always("Does not arise: thresh has no tau-bench."));
    /// Searches for hospitals and taxis raise.
    Q43 = ("searches for hospitals and taxis raise", "They cannot be reached with the eight tools.",
        Always("Does not arise."));
    /// A PPO script masks every call.
    Q44 = ("a PPO script masks every call", "Every turn that calls a tool is left out of the loss, not only those that failed.",
        Always("Does not arise: thresh has no PPO."));
    /// Notes that name another corpus.
    Q45 = ("notes that name another corpus", "Comments speak of MultiWOZ 2.2; the data are 2.0.",
        Always("Does not arise: the layout that is read is named."));
}
