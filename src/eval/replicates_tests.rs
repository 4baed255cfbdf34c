use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::*;

fn values(row: &[(u32, f64)]) -> Values<u32> {
    row.iter().copied().collect()
}

#[test]
fn one_replicate_is_students_test_over_dialogues() {
    // Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.4641 with two degrees of freedom: p = 0.0742.
    let arm = [values(&[(1, 1.0), (2, 2.0), (3, 3.0), (9, 50.0)])];
    let base = [values(&[(1, 0.0), (2, 0.0), (3, 0.0), (8, 50.0)])];
    let found = pooled_difference(&arm, &base, 0.95).unwrap();
    assert_eq!((found.mean, found.seeds, found.by_dialogue.as_slice()), (2.0, false, &[1.0, 2.0, 3.0][..]));
    assert!((found.p.unwrap() - 0.074_180).abs() < 1e-6, "{found:?}");
    assert!((found.high.unwrap() - 2.0 - 4.302_652_73 / 3.0_f64.sqrt()).abs() < 1e-6);
}

#[test]
fn what_cannot_be_told_is_none() {
    let (one, none) = (values(&[(1, 0.5)]), values(&[]));
    assert_eq!(pooled_mean::<u32>(&[], 0.95), None);
    assert_eq!(pooled_mean(&[none.clone(), none.clone()], 0.95), None);
    assert_eq!(pooled_difference(std::slice::from_ref(&one), &[none], 0.95), None);
    let single = pooled_mean(&[one.clone(), one], 0.95).unwrap();
    assert_eq!((single.mean, single.low, single.p), (0.5, None, None));
    let same = [values(&[(1, 0.5), (2, 0.25)])];
    let none = pooled_difference(&same, &same, 0.95).unwrap();
    assert_eq!((none.mean, none.low, none.p), (0.0, Some(0.0), Some(1.0)));
    // All dialogues differ by the same: nothing varies, so that Student's t says nothing.
    let more = [values(&[(1, 1.5), (2, 1.25)])];
    let found = pooled_difference(&more, &same, 0.95).unwrap();
    assert_eq!((found.mean, found.low, found.p), (1.0, None, None));
}

#[test]
fn a_replicate_that_only_repeats_is_no_evidence() {
    let (arm, base) =
        (values(&[(1, 1.0), (2, 0.0), (3, 1.0), (4, 1.0)]), values(&[(1, 0.0), (2, 0.0), (3, 1.0), (4, 0.0)]));
    let once = pooled_difference(std::slice::from_ref(&arm), std::slice::from_ref(&base), 0.95).unwrap();
    let thrice =
        pooled_difference(&[arm.clone(), arm.clone(), arm], &[base.clone(), base.clone(), base], 0.95).unwrap();
    assert_eq!((once.p, once.low, once.high), (thrice.p, thrice.low, thrice.high));
    assert!(thrice.seeds && !once.seeds);
}

/// A world in which arms are alike: dialogues are hard or easy, trainings come out well or badly, and the rest is chance.
struct World {
    dialogues: u32,
    replicates: u32,
    /// How much trainings differ, in logits.
    trainings: f64,
    /// Whether each replicate plays dialogues of its own.
    own_dialogues: bool,
}

impl World {
    fn arm(&self, hard: &[Vec<f64>], random: &mut ChaCha8Rng) -> Vec<Values<u32>> {
        let replicate = |number: u32, random: &mut ChaCha8Rng| {
            let came_out = self.trainings * normal(random);
            let (first, hard) = match self.own_dialogues {
                true => (number * self.dialogues, &hard[number as usize]),
                false => (0, &hard[0]),
            };
            let play = |(at, hard): (usize, &f64)| {
                let chance = 1.0 / (1.0 + (-(0.3 + 1.5 * hard + came_out)).exp());
                (first + at as u32, f64::from(u8::from(random.random::<f64>() < chance)))
            };
            hard.iter().enumerate().map(play).collect()
        };
        (0..self.replicates).map(|number| replicate(number, random)).collect()
    }

    /// How often alike arms are told apart: by this test, and by counting dialogues alone.
    fn false_alarms(&self, times: u32) -> (f64, f64) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let (mut alarms, mut careless) = (0, 0);
        for _ in 0..times {
            let hard: Vec<Vec<f64>> =
                (0..self.replicates).map(|_| (0..self.dialogues).map(|_| normal(&mut random)).collect()).collect();
            let (arm, base) = (self.arm(&hard, &mut random), self.arm(&hard, &mut random));
            let found = pooled_difference(&arm, &base, 0.95).unwrap();
            let outside = found.low.unwrap() > 0.0 || found.high.unwrap() < 0.0;
            assert_eq!(outside, found.p.unwrap() < 0.05, "interval and p value say the same");
            alarms += u32::from(outside);
            careless += u32::from(estimate(found.by_dialogue, &[], 0.95).unwrap().p.unwrap() < 0.05);
        }
        (f64::from(alarms) / f64::from(times), f64::from(careless) / f64::from(times))
    }
}

/// A draw of the normal distribution (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (one, two): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    (-2.0 * one.ln()).sqrt() * (2.0 * std::f64::consts::PI * two).cos()
}

#[test]
fn alike_arms_are_seldom_told_apart() {
    for (replicates, trainings, own_dialogues, most) in [
        (1, 0.0, false, 0.08),
        (2, 0.0, false, 0.06),
        (2, 0.15, false, 0.11),
        (2, 0.4, false, 0.13),
        (3, 0.15, false, 0.10),
        (3, 0.4, false, 0.11),
        (5, 0.4, false, 0.09),
        (2, 0.4, true, 0.13),
        (5, 0.15, true, 0.06),
    ] {
        let world = World { dialogues: 150, replicates, trainings, own_dialogues };
        let (alarms, careless) = world.false_alarms(400);
        assert!(alarms <= most, "{replicates} replicates, {trainings}, {own_dialogues}: {alarms}");
        // What it is for: dialogues alone take another training for another method.
        assert!(trainings < 0.4 || careless > 0.25, "{replicates} replicates: {careless}");
    }
}

#[test]
fn a_difference_is_found_where_there_is_one() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let hard: Vec<Vec<f64>> = vec![(0..300).map(|_| normal(&mut random)).collect(); 3];
    let better: Vec<Vec<f64>> = hard.iter().map(|row| row.iter().map(|value| value + 0.6).collect()).collect();
    let world = World { dialogues: 300, replicates: 3, trainings: 0.1, own_dialogues: false };
    let found = (0..100).filter(|_| {
        let (arm, base) = (world.arm(&better, &mut random), world.arm(&hard, &mut random));
        pooled_difference(&arm, &base, 0.95).unwrap().p.unwrap() < 0.05
    });
    let found = found.count();
    assert!(found > 75, "{found} of 100");
}

#[test]
fn a_gain_on_seeds_that_differ_much_is_seen_within_them() {
    let replicate = |level: f64, gain: f64| -> Values<usize> {
        (0..200).map(|place| (place, level + gain + f64::from(place as u32 % 7) / 10.0)).collect()
    };
    let seeds = [(0.1, 0.04), (0.5, 0.05), (0.9, 0.045)];
    let base: Vec<_> = seeds.iter().map(|(level, _)| replicate(*level, 0.0)).collect();
    let arm: Vec<_> = seeds.iter().map(|(level, gain)| replicate(*level, *gain)).collect();
    let pairs: Vec<_> = arm.iter().zip(&base).collect();
    let (paired, pooled) = (paired_difference(&pairs, 0.95).unwrap(), pooled_difference(&arm, &base, 0.95).unwrap());
    assert!((paired.mean - 0.045).abs() < 1e-9 && (paired.mean - pooled.mean).abs() < 1e-9 && paired.seeds);
    assert!(paired.p.unwrap() < 0.01 && pooled.p.unwrap() > 0.5, "{paired:?} {pooled:?}");
    // Student's t with two degrees of freedom over the three differences.
    let reach = 4.302_652_729_7 * deviation(&[0.04, 0.05, 0.045]).unwrap() / 3f64.sqrt();
    assert!((paired.high.unwrap() - 0.045 - reach).abs() < 1e-6, "{paired:?}");
    let one = paired_difference(&pairs[..1], 0.95).unwrap();
    assert!(!one.seeds && one.by_dialogue.len() == 200);
}
