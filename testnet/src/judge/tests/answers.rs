//! Answers are what was asked for, and what the undivided model says.

use super::*;

#[test]
fn not_a_number_is_wrong_however_it_travelled() {
    for codecs in ["raw,raw", "f16,raw"] {
        let (mut history, mut truth) = healthy(4);
        truth.wishes[0].min_accuracy = Some(0.5);
        let codecs = history.names.place(codecs);
        floats(&mut history.outputs[1][0])[0] = f32::NAN;
        for at in 0..4 {
            answer(&mut history, at).codecs = codecs;
        }
        assert_eq!(judge(&demands(), &history, &truth).counts.wrong, 1);
    }
}

#[test]
fn rounded_answers_are_held_to_the_manifests_losses() {
    let (mut history, mut truth) = healthy(40);
    truth.wishes[0].min_accuracy = Some(0.5);
    let codecs = history.names.place("int8,raw");
    (0..40).for_each(|at| answer(&mut history, at).codecs = codecs);
    // Input 0 reads otherwise: one of four inputs.
    history.outputs[0][0].values = Values::Floats(vec![0.5, 0.75]);
    let check = |truth: &Truth| {
        let verdict = judge(&demands(), &history, truth);
        (verdict.counts.wrong, failed(&verdict).iter().map(|what| (*what).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(check(&truth), (0, vec!["rounded answers read otherwise".to_owned()]));
    let expected = truth.variants.get_mut(&(0, "base".to_owned())).unwrap();
    expected.losses.insert("int8".to_owned(), 0.25);
    assert_eq!(check(&truth), (0, Vec::new()));
    // Of four inputs a share of a fifth is less than one.
    truth.variants.get_mut(&(0, "base".to_owned())).unwrap().losses.insert("int8".to_owned(), 0.2);
    assert_eq!(check(&truth), (0, vec!["rounded answers read otherwise".to_owned()]));
}

#[test]
fn labels_are_exact_and_halves_have_fewer_digits() {
    let labels = |label: i64| output(DType::I64, Values::Exact(label.to_le_bytes().to_vec()));
    let numbers = |dtype, value| output(dtype, Values::Floats(vec![4.0, value]));
    // An expected output, one that is answered, and whether that is wrong.
    let cases = [
        (labels(7), labels(7), false),
        (labels(7), labels(8), true),
        (numbers(DType::F16, 1.0), numbers(DType::F16, 1.005), false),
        (numbers(DType::F16, 1.0), numbers(DType::F16, 1.01), true),
        (numbers(DType::BF16, 1.0), numbers(DType::BF16, 1.06), false),
        (numbers(DType::BF16, 1.0), numbers(DType::BF16, 1.07), true),
        (numbers(DType::F64, 1.0), numbers(DType::F64, 1.001), true),
        // The same numbers of another type are another answer.
        (numbers(DType::F32, 1.0), numbers(DType::F16, 1.0), true),
        (labels(7), numbers(DType::F32, 7.0), true),
    ];
    for (expected, answered, is_wrong) in cases {
        let (mut history, mut truth) = healthy(1);
        truth.variants.get_mut(&(0, "base".to_owned())).unwrap().outputs[1] = vec![expected.clone()];
        history.outputs[1] = vec![answered.clone()];
        let verdict = judge(&Expectations { answers_min: 0, ..demands() }, &history, &truth);
        assert_eq!(verdict.counts.wrong, u64::from(is_wrong), "{expected:?} {answered:?}");
    }
    // Rounded on the way, a label is read as what it says.
    let (mut history, mut truth) = healthy(1);
    truth.variants.get_mut(&(0, "base".to_owned())).unwrap().outputs[1] = vec![labels(7)];
    history.outputs[1] = vec![labels(8)];
    answer(&mut history, 0).codecs = history.names.place("int8,raw");
    truth.wishes[0].min_accuracy = Some(0.5);
    assert_eq!(failed(&judge(&demands(), &history, &truth)), ["rounded answers read otherwise"]);
}

#[test]
fn an_infinite_element_makes_nothing_else_right() {
    for codecs in ["raw,raw", "int8,raw"] {
        let infinite = |second| vec![output(DType::F32, Values::Floats(vec![f32::INFINITY, second]))];
        let (mut history, mut truth) = healthy(4);
        truth.wishes[0].min_accuracy = Some(0.5);
        let names = history.names.place(codecs);
        (0..4).for_each(|at| answer(&mut history, at).codecs = names);
        truth.variants.get_mut(&(0, "base".to_owned())).unwrap().outputs[1] = infinite(1.0);
        // It is infinite in the model as well, and the rest is right.
        history.outputs[1] = infinite(1.0);
        assert_eq!(judge(&demands(), &history, &truth).counts.wrong, 0, "{codecs}");
        history.outputs[1] = vec![output(DType::F32, Values::Floats(vec![7.0, 1.0]))];
        assert_eq!(judge(&demands(), &history, &truth).counts.wrong, 1, "{codecs}");
        history.outputs[1] = vec![output(DType::F32, Values::Floats(vec![f32::NEG_INFINITY, 1.0]))];
        assert_eq!(judge(&demands(), &history, &truth).counts.wrong, 1, "{codecs}");
        if codecs == "raw,raw" {
            history.outputs[1] = infinite(-500.0);
            assert_eq!(judge(&demands(), &history, &truth).counts.wrong, 1);
        }
    }
}

#[test]
fn nothing_is_rounded_that_no_accuracy_allows() {
    let (mut history, mut truth) = healthy(4);
    answer(&mut history, 2).codecs = history.names.place("raw,f16,raw");
    let verdict = judge(&demands(), &history, &truth);
    assert_eq!(failed(&verdict), ["wrong answers"]);
    assert!(verdict.bad[0].why.contains("(f16)"), "{}", verdict.bad[0].why);
    truth.wishes[0].min_accuracy = Some(0.9);
    assert!(judge(&demands(), &history, &truth).holds());
}

#[test]
fn the_variant_that_answers_is_one_that_was_asked_for() {
    let (mut history, mut truth) = healthy(4);
    let mut small = truth.variants[&(0, "base".to_owned())].clone();
    small.accuracy = 0.75;
    truth.variants.insert((0, "small".to_owned()), small);
    answer(&mut history, 1).variant = history.names.place("small");
    let wrong = |variant: Option<&str>, min_accuracy| {
        let wish = Wish { variant: variant.map(str::to_owned), min_accuracy };
        judge(&demands(), &history, &Truth { wishes: vec![wish], ..truth.clone() }).counts.wrong
    };
    assert_eq!([wrong(None, None), wrong(Some("base"), None), wrong(Some("small"), None)], [0, 1, 3]);
    assert_eq!([wrong(None, Some(0.75)), wrong(None, Some(0.8)), wrong(None, Some(1.0))], [0, 1, 1]);
}
