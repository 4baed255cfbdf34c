//! Which of the known names someone meant.

/// The known name nearest to a wrong one, if it is near enough to be meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_lowercase()), name))
        .filter(|(distance, name)| {
            let length = name.chars().count().max(wrong.chars().count());
            // A name of which nothing is left is not near.
            *distance <= 1 + length / 4 && *distance < length
        })
        .min()
        .map(|(_, name)| name)
}
