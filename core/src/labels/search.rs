//! Which class a text means: one ranking for the command line, the window and the page.

use super::{Labels, printable, short};

/// Why a class was not found.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum LabelError {
    /// Nothing of that name.
    #[error("there is no class {query:?}{}", suggest(.near))]
    Unknown {
        /// What was asked for.
        query: String,
        /// Names that are close.
        near: Vec<String>,
    },
    /// Several classes are called so or, where none is, contain it.
    #[error("{query:?} could be one of these classes, choose by number: {}", list(.candidates))]
    Ambiguous {
        /// What was asked for.
        query: String,
        /// Number and name, with all synonyms, of each class that it could be.
        candidates: Vec<(usize, String)>,
    },
    /// Several classes are called so, and a number would not tell them apart: they are called by numbers.
    #[error("{query:?} could be one of these classes, choose by place: {}", list_places(.candidates))]
    AmbiguousNumbers {
        /// What was asked for.
        query: String,
        /// Place and name, with all synonyms, of each class that it could be.
        candidates: Vec<(usize, String)>,
    },
    /// A number before the first class or beyond the last.
    #[error("class {number} does not exist; they run from {first} to {last}")]
    OutOfRange {
        /// What was asked for.
        number: i64,
        /// The first class.
        first: usize,
        /// The last class.
        last: usize,
    },
}

fn suggest(near: &[String]) -> String {
    if near.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", printable(&near.join(", ")))
    }
}

/// Candidates that an error lists.
const LISTED: usize = 8;

fn list(candidates: &[(usize, String)]) -> String {
    list_with("", candidates)
}

fn list_places(candidates: &[(usize, String)]) -> String {
    list_with("#", candidates)
}

fn list_with(sign: &str, candidates: &[(usize, String)]) -> String {
    let one = |(class, name): &(usize, String)| format!("{sign}{class} {}", printable(name));
    let listed = candidates.iter().take(LISTED).map(one);
    let rest = candidates.len().checked_sub(LISTED).filter(|rest| *rest > 0);
    listed.chain(rest.map(|rest| format!("{rest} more"))).collect::<Vec<_>>().join("; ")
}

/// How close a class is to a text, the closest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// It is the class of that number.
    Number,
    /// Its whole name or first synonym is the text.
    Name,
    /// Another synonym is.
    Synonym,
    /// A synonym begins with the text.
    Beginning,
    /// A word does.
    Word,
    /// Its name contains the text.
    Part,
}

/// How close a name is to a text in lower case; `None` where it does not contain it.
fn closeness(name: &str, text: &str) -> Option<Closeness> {
    let name = name.to_lowercase();
    let synonyms = || name.split(',').map(str::trim);
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    Some(match text {
        "" => Closeness::Part,
        _ if name.trim() == text || short(&name) == text => Closeness::Name,
        _ if synonyms().any(|synonym| synonym == text) => Closeness::Synonym,
        _ if synonyms().any(|synonym| synonym.starts_with(text)) => Closeness::Beginning,
        _ if words.any(|word| word.starts_with(text)) => Closeness::Word,
        _ if name.contains(text) => Closeness::Part,
        _ => return None,
    })
}

/// A decimal number without leading zeros; `None` where the text is none.
fn digits(text: &str) -> Option<&str> {
    let decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    decimal.then(|| match text.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    })
}

/// The classes that are called exactly so, among those found; empty where the text is only a part of names.
fn exact(hits: &[(Closeness, usize)]) -> Vec<usize> {
    let best = hits.first().map(|(closeness, _)| *closeness);
    let best = best.filter(|closeness| *closeness <= Closeness::Synonym);
    let alike = hits.iter().take_while(|(closeness, _)| Some(*closeness) == best);
    alike.map(|(_, class)| *class).collect()
}

impl Labels {
    /// Number and name of every class whose name contains the text, ignoring case; all for "".
    ///
    /// The closest come first: the class of that number (see [`find`](Self::find)), names and first synonyms
    /// that are the text, other synonyms that are, that begin with it, that have a word which does; within
    /// each kind in the order of the labels.
    pub fn search(&self, text: &str) -> Vec<(usize, &str)> {
        let hits = self.ranked(&text.trim().to_lowercase());
        hits.into_iter().map(|(_, class)| (class, self.names[class].as_str())).collect()
    }

    /// The classes that a text is the name of: the class of that number, else those whose whole name or first
    /// synonym it is, else those that have it as another synonym. Several where classes share a name, as the
    /// two cranes of ImageNet do; none where it is only a part of names.
    pub fn called(&self, text: &str) -> Vec<usize> {
        match text.trim().to_lowercase().as_str() {
            "" => Vec::new(),
            text => exact(&self.ranked(text)),
        }
    }

    /// The class that a number, a name, a synonym or an unambiguous part of a name means.
    ///
    /// A number means the class that is called so and, where classes have other names, the one at that place,
    /// counted from 0. A whole name or first synonym is closer than other synonyms, these are closer than
    /// parts of names. Among classes whose names differ only in case, it is the one that is written so. `#3` is
    /// the class at that place, counted from 0, whatever the classes are called.
    ///
    /// # Errors
    ///
    /// * [`LabelError::OutOfRange`] where a number is before the first class or beyond the last
    /// * [`LabelError::Ambiguous`] where several classes are called so or, where none is, contain the text;
    ///   [`LabelError::AmbiguousNumbers`] where their numbers mean other classes
    /// * [`LabelError::Unknown`] where none does
    pub fn find(&self, query: &str) -> Result<usize, LabelError> {
        let text = query.trim().to_lowercase();
        let hits = if text.is_empty() { Vec::new() } else { self.ranked(&text) };
        let mut meant = exact(&hits);
        if meant.is_empty() {
            let negative = text.strip_prefix('-').and_then(digits);
            if let Some(number) = digits(&text).or(negative) {
                return Err(self.no_number(query, number, negative.is_some()));
            }
            if let Some(place) = text.strip_prefix('#').and_then(digits) {
                return self.at(place.parse().unwrap_or(usize::MAX));
            }
            meant = hits.into_iter().map(|(_, class)| class).collect();
        }
        match meant.as_slice() {
            [] => Err(self.unknown(query)),
            [class] => Ok(*class),
            several => self.written_so(several, query.trim()),
        }
    }

    /// Of several classes whose names differ only in case, the one that is written as the text.
    fn written_so(&self, several: &[usize], query: &str) -> Result<usize, LabelError> {
        let lower = query.to_lowercase();
        let name = |class: &usize| self.names[*class].trim();
        if several.iter().all(|class| name(class).to_lowercase() == lower) {
            let mut written = several.iter().filter(|class| name(class) == query);
            if let (Some(class), None) = (written.next(), written.next()) {
                return Ok(*class);
            }
        }
        let query = query.to_string();
        let candidates = several.iter().map(|class| (*class, self.name(*class))).collect();
        let is_number = |class: &usize| self.of_number(&class.to_string()) == Some(*class);
        Err(match several.iter().all(is_number) {
            true => LabelError::Ambiguous { query, candidates },
            false => LabelError::AmbiguousNumbers { query, candidates },
        })
    }

    /// The class at a place in the list, counted from 0, whatever it is called.
    ///
    /// # Errors
    ///
    /// [`LabelError::OutOfRange`] where it is beyond the last class.
    pub fn at(&self, place: usize) -> Result<usize, LabelError> {
        match place < self.len() {
            true => Ok(place),
            false => {
                let last = self.len().saturating_sub(1);
                let number = i64::try_from(place).unwrap_or(i64::MAX);
                Err(LabelError::OutOfRange { number, first: 0, last })
            }
        }
    }

    /// Every class that contains a text in lower case, the closest first.
    fn ranked(&self, text: &str) -> Vec<(Closeness, usize)> {
        let numbered = self.of_number(text);
        let hit = |(class, name): (usize, &String)| {
            let closeness = match numbered == Some(class) {
                true => Closeness::Number,
                false => closeness(name, text)?,
            };
            Some((closeness, class))
        };
        let mut hits: Vec<_> = self.names.iter().enumerate().filter_map(hit).collect();
        hits.sort_unstable();
        hits
    }

    /// The class that a number means: the one that is called so, else the one at that place unless it is
    /// called by another number.
    fn of_number(&self, text: &str) -> Option<usize> {
        let number = digits(text)?;
        let is_called = |name: &String| digits(short(name)) == Some(number);
        let mut called = (0..self.len()).filter(|class| is_called(&self.names[*class]));
        match (called.next(), called.next()) {
            (Some(class), None) => Some(class),
            (Some(_), Some(_)) => None,
            (None, _) => {
                let place = number.parse::<usize>().ok()?;
                let name = self.names.get(place)?;
                digits(short(name)).is_none().then_some(place)
            }
        }
    }

    /// The error of a number that means no class; its digits, and whether it is negative.
    fn no_number(&self, query: &str, number: &str, negative: bool) -> LabelError {
        let numbers =
            self.names.iter().filter_map(|name| digits(short(name))?.parse::<usize>().ok());
        let mut numbers: Vec<usize> = numbers.collect();
        numbers.sort_unstable();
        let (first, last) = match numbers.as_slice() {
            [first, .., last] if numbers.len() == self.len() => (*first, *last),
            [only] if self.len() == 1 => (*only, *only),
            _ => (0, self.len().saturating_sub(1)),
        };
        let outside = |number: i64| match usize::try_from(number) {
            Ok(number) => number < first || number > last,
            Err(_) => true,
        };
        match number.parse::<i64>().map(|number| if negative { -number } else { number }) {
            Ok(number) if outside(number) => LabelError::OutOfRange { number, first, last },
            _ => self.unknown(query),
        }
    }

    fn unknown(&self, query: &str) -> LabelError {
        let text = query.trim().to_lowercase();
        LabelError::Unknown { query: query.into(), near: self.near(&text) }
    }

    /// Up to three names that are spelled much like the text.
    fn near(&self, text: &str) -> Vec<String> {
        let score = |name: &String| {
            name.to_lowercase()
                .split(|c: char| !c.is_alphanumeric())
                .chain([name.to_lowercase().as_str()])
                .map(|word| strsim::jaro_winkler(word, text))
                .fold(0.0, f64::max)
        };
        let mut scored: Vec<_> = self.names.iter().map(|n| (score(n), n)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().filter(|(s, _)| *s > 0.75).take(3).map(|(_, n)| n.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Labels {
        Labels::new(names.iter().map(|name| name.to_string()).collect())
    }

    fn few() -> Labels {
        labels(&["smiley", "land-vehicle", "sea-creature", "tench, Tinca tinca", "fruit"])
    }

    #[test]
    fn a_class_is_found_by_number_name_synonym_and_part() {
        for (query, class) in
            [("0", 0), ("Smiley", 0), ("vehicle", 1), ("tinca TINCA", 3), (" fruit ", 4)]
        {
            assert_eq!(few().find(query), Ok(class), "{query}");
        }
    }

    #[test]
    fn the_closest_come_first() {
        let labels = Labels::imagenet();
        let first = |text: &str| labels.search(text).first().map(|(class, _)| *class);
        assert_eq!(first("207"), Some(207));
        assert_eq!(first("Golden Retriever"), Some(207));
        assert_eq!(first("panda bear"), Some(388)); // a synonym
        assert_eq!(first("daisy"), Some(985));
        assert_eq!(first("gold"), Some(1)); // goldfish begins with it, marigold does not
        assert_eq!(first("harp"), Some(594)); // the first synonym before another of the harmonica's
        assert_eq!(labels.search("").len(), 1000);
        assert_eq!(labels.search("  ")[999].1, "toilet tissue, toilet paper, bathroom tissue");
        assert!(labels.search("no such thing").is_empty());
    }

    #[test]
    fn a_miss_says_what_is_near() {
        let error = few().find("smily").unwrap_err();
        assert_eq!(error.to_string(), "there is no class \"smily\"; did you mean smiley?");
        let error = few().find("e").unwrap_err().to_string();
        assert!(error.contains("choose by number: 0 smiley; 1 land-vehicle"), "{error}");
        assert!(few().find("9").unwrap_err().to_string().contains("from 0 to 4"));
        assert!(few().find("").is_err());
    }

    /// Names of ImageNet that two classes share: where one of them is called so first, it is that one.
    #[test]
    fn a_first_synonym_alone_wins() {
        let labels = Labels::imagenet();
        for (query, class) in [
            ("harp", 594),
            ("crayfish", 124),
            ("gong", 577),
            ("Partridge", 86),
            ("tub", 876),
            ("missile", 657),
            ("polecat", 358),
            ("tabby cat", 281),
            ("maillot, tank suit", 639),
            ("Cardigan Welsh corgi", 264),
        ] {
            assert_eq!(labels.find(query), Ok(class), "{query}");
        }
    }

    #[test]
    fn a_shared_name_lists_its_classes() {
        let labels = Labels::imagenet();
        for (query, classes) in [
            ("crane", [134, 517]),
            ("cardigan", [264, 474]),
            ("maillot", [638, 639]),
            ("panda", [387, 388]),
            ("horn", [513, 566]),
            ("wagon", [436, 734]),
            ("sus scrofa", [341, 342]),
        ] {
            assert_eq!(labels.called(query), classes, "{query}");
            let candidates = classes.map(|class| (class, labels.name(class))).to_vec();
            let error = LabelError::Ambiguous { query: query.into(), candidates };
            assert_eq!(labels.find(query), Err(error), "{query}");
        }
        assert_eq!(
            labels.find("crane").unwrap_err().to_string(),
            "\"crane\" could be one of these classes, choose by number: 134 crane; 517 crane"
        );
        let long = labels.find("dog").unwrap_err().to_string();
        assert!(long.ends_with(" more"), "{long}");
        assert!(labels.called("cran").is_empty() && labels.called("").is_empty());
    }

    /// Folders 0 to 11 in the order of their texts.
    #[test]
    fn a_number_is_the_class_that_is_called_so() {
        let texts = labels(&["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"]);
        assert_eq!(texts.find("10"), Ok(2));
        assert_eq!(texts.find("2"), Ok(4));
        assert_eq!(texts.search("10")[0], (2, "10"));
        let error = texts.find("12").unwrap_err();
        assert_eq!(error, LabelError::OutOfRange { number: 12, first: 0, last: 11 });

        let flowers = Labels::new((1..=102).map(|n| n.to_string()).collect());
        assert_eq!((flowers.find("1"), flowers.find("102")), (Ok(0), Ok(101)));
        let error = flowers.find("0").unwrap_err();
        assert_eq!(error.to_string(), "class 0 does not exist; they run from 1 to 102");
        let padded = Labels::new((1..=102).map(|n| format!("{n:03}")).collect());
        assert_eq!((padded.find("7"), padded.find("007")), (Ok(6), Ok(6)));

        let gaps = labels(&["3", "17", "10"]);
        assert_eq!(gaps.find("17"), Ok(1));
        assert!(matches!(gaps.find("7"), Err(LabelError::Unknown { .. })), "not a part of 17");
        assert!(matches!(gaps.find("1"), Err(LabelError::OutOfRange { first: 3, last: 17, .. })));
        let cases = labels(&["A", "a", "1", "1"]);
        assert_eq!((cases.find("A"), cases.find("a"), cases.find("#3")), (Ok(0), Ok(1), Ok(3)));
        let error = cases.find("1").unwrap_err().to_string();
        assert_eq!(error, "\"1\" could be one of these classes, choose by place: #2 1; #3 1");
        assert!(cases.find("#4").is_err());
        let error = texts.find("-1").unwrap_err().to_string();
        assert_eq!(error, "class -1 does not exist; they run from 0 to 11");
        let mixed = labels(&["0", "2", "3", "background"]);
        assert_eq!((mixed.find("2"), mixed.find("back")), (Ok(1), Ok(3)));
        assert!(mixed.find("1").is_err(), "the class at that place is called 2");
        assert_eq!(mixed.at(1), Ok(1));
        assert!(mixed.at(4).is_err());
        assert!(texts.find("99999999999999999999").is_err());
    }
}
