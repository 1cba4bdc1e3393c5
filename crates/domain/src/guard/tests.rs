//! What each recogniser takes and leaves.
#![allow(clippy::unwrap_used)]

use super::*;

/// `kind:text` of everything that is found.
fn found(text: &str) -> Vec<String> {
    findings(text, Kinds::ALL)
        .into_iter()
        .map(|f| format!("{}:{}", f.kind.as_str(), &text[f.start..f.end]))
        .collect()
}

#[track_caller]
fn takes(text: &str, expected: &[&str]) {
    assert_eq!(found(text), expected, "{text:?}");
}

#[track_caller]
fn leaves(text: &str) {
    takes(text, &[]);
}

#[test]
fn cards_need_luhn_and_a_network() {
    takes(
        "pay with 4111 1111 1111 1111 now",
        &["card:4111 1111 1111 1111"],
    );
    takes("5555-5555-5555-4444", &["card:5555-5555-5555-4444"]);
    takes("amex 378282246310005.", &["card:378282246310005"]);
    takes("card number 630427373398 is lost", &["card:630427373398"]);
    takes("card 4735615260219382870?", &["card:4735615260219382870"]);
    leaves("4111 1111 1111 1112");
    leaves("order 9999999999999995");
    leaves("a timestamp 1700000000000");
}

#[test]
fn accounts_need_their_countrys_length_and_mod_97() {
    takes("gb42nawi04454264788619", &["iban:gb42nawi04454264788619"]);
    takes(
        "to DE89 3704 0044 0532 0130 00, thanks",
        &["iban:DE89 3704 0044 0532 0130 00"],
    );
    takes(
        "FR1420041010050500013M02606",
        &["iban:FR1420041010050500013M02606"],
    );
    leaves("DE89370400440532013001");
    leaves("XX89370400440532013000");
}

#[test]
fn mail_addresses() {
    takes(
        "write to Ana.B+x@mail.example.co.uk.",
        &["email:Ana.B+x@mail.example.co.uk"],
    );
    takes("<josé@exämple.de>", &["email:josé@exämple.de"]);
    takes("mailto:a@b.io?subject=x", &["email:a@b.io"]);
    takes(
        "_x_1@a.org 12345@b.com",
        &["email:_x_1@a.org", "email:12345@b.com"],
    );
    takes("邮箱是test@example.com。", &["email:test@example.com"]);
    leaves("user@localhost or @name or a@b");
}

#[test]
fn telephone_numbers_in_many_ways() {
    for text in [
        "+46 (0)8 928 571 38",
        "+447700 921 916",
        "001-518-640-0854",
        "905-674-3793",
        "(579)888-3058",
        "259.735.7502x459",
        "+1-903-140-4508x769",
        "01.84.17.61.18",
        "0496 46 46 70",
        "030/1234 5678",
        "(08) 8747 6301",
        "+1 (212) 555-0187 ext. 12",
        "+49\u{a0}30\u{a0}901820",
    ] {
        takes(text, &[&format!("phone:{text}")]);
    }
    takes("Call me at 467 3395", &["phone:467 3395"]);
    takes("ring 9498777106 today", &["phone:9498777106"]);
    takes("416 60 039 office", &["phone:416 60 039"]);
    takes("我的电话13800138000", &["phone:13800138000"]);
    takes(
        r"Phone:\n467 3395\nMail:\ta@b.io \u00e9a@c.io",
        &["phone:467 3395", "email:a@b.io", "email:a@c.io"],
    );
}

#[test]
fn other_numbers_are_no_telephones() {
    for text in [
        "2018-01-14 03:07:43",
        "14.01.2018",
        "from 1999-2004",
        "370 3911 Fourth Avenue Suite 2",
        "ZIP: 75534-030",
        "My driver's license number is 6940579",
        "My driver's license number is 2270-66-1551",
        "550e8400-e29b-41d4-a716-446655440000",
        "3... 2... 1... liftoff!",
        "1 234 567 people",
        "version 1.2.3.4567",
        "3.14159265358979",
        "ISBN 978-3-16-148410-0",
        "order 12345678",
        "f(1234567)",
    ] {
        leaves(text);
    }
}

#[test]
fn social_security_numbers() {
    takes("my SSN: 460-89-9847", &["ssn:460-89-9847"]);
    takes("social security number 460899847", &["ssn:460899847"]);
    leaves("000-12-3456");
    leaves("666-12-3456");
    leaves("460 89 9847 times");
}

#[test]
fn ids_of_states_by_their_checksums() {
    for text in [
        "12345678Z",
        "X1234567L",
        "131052-308T",
        "RSSMRA85T10A562S",
        "AB123456C",
        "S1234567D",
        "529.982.247-25",
        "756.9217.0769.85",
        "811218-9876",
        "85.07.30-033.28",
        "11010519491231002X",
        "180126955222380",
    ] {
        takes(text, &[&format!("national_id:{text}")]);
    }
    takes("PESEL 44051401359", &["national_id:44051401359"]);
    takes("aadhaar 2341 2341 2346", &["national_id:2341 2341 2346"]);
    takes("BSN: 111222333", &["national_id:111222333"]);
    takes("NHS number 943 476 5919", &["national_id:943 476 5919"]);
    leaves("12345678A");
    leaves("131052-308S");
    leaves("529.982.247-26");
}

#[test]
fn addresses_of_machines() {
    takes("from 86.121.97.248:443", &["ip:86.121.97.248"]);
    takes(r"?%//!%20\|106.31.73.20|%20/", &["ip:106.31.73.20"]);
    takes(
        "6e40:4041:c617:e898:c11:40d2:c669:2eb4 and fe80::1:2",
        &["ip:6e40:4041:c617:e898:c11:40d2:c669:2eb4", "ip:fe80::1:2"],
    );
    takes(
        "00:1A:2b:3C:4d:5E and 001a.2b3c.4d5e",
        &["mac:00:1A:2b:3C:4d:5E", "mac:001a.2b3c.4d5e"],
    );
    leaves("127.0.0.1, ::1, 256.1.1.1, version 1.2.3.4, 1.2.3.4.5");
    leaves("at 12:34:56 std::net bad::face ace::bad");
}

#[test]
fn web_addresses() {
    takes(
        "see https://a.example/p?q=(1).",
        &["url:https://a.example/p?q=(1)"],
    );
    takes("(http://www.TaxAids.ca/)", &["url:http://www.TaxAids.ca/"]);
    takes("www.example.org,", &["url:www.example.org"]);
    leaves("http:// and www. and a://");
    let text = "https://x.org/?mail=a@b.com";
    let kinds = Kinds::ALL.without(Kind::Url);
    assert_eq!(
        findings(text, kinds)[0].kind,
        Kind::Email,
        "what is in it is looked at"
    );
}

#[test]
fn places_on_earth() {
    takes("at 52.5200, 13.4050 now", &["coordinates:52.5200, 13.4050"]);
    takes("GPS -33.868, 151.209", &["coordinates:-33.868, 151.209"]);
    takes(
        "40°26′46″N 79°58′56″W",
        &["coordinates:40°26′46″N 79°58′56″W"],
    );
    takes(
        "lat: 52.5200 lon: 13.4050",
        &["coordinates:52.5200", "coordinates:13.4050"],
    );
    leaves("[0.1234, 0.5678, 0.9123]");
    leaves("[1.1234, 2.5678, 3.9123, 4.5555]");
    leaves("costs 12.50, 13.50");
}

#[test]
fn keys_and_secrets() {
    let key = "sk-proj-Ab12Cd34Ef56Gh78Ij90";
    takes(&format!("use {key}!"), &[&format!("secret:{key}")]);
    takes("AKIAIOSFODNN7EXAMPLE", &["secret:AKIAIOSFODNN7EXAMPLE"]);
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N";
    takes(jwt, &[&format!("secret:{jwt}")]);
    takes(
        "Authorization: Bearer abcdef0123456789abcdef",
        &["secret:abcdef0123456789abcdef"],
    );
    takes("password: hunter2!", &["secret:hunter2"]);
    takes(r#"{"api_key": "q8Zr2LmX0pTw"}"#, &["secret:q8Zr2LmX0pTw"]);
    takes(
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG",
        &["secret:wJalrXUtnFEMI/K7MDENG"],
    );
    takes("postgres://app:s3cret@db.example/x", &["secret:app:s3cret"]);
    takes(r#"{\"password\": \"hunter22x\"}"#, &["secret:hunter22x"]);
    let block = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nabc\n-----END RSA PRIVATE KEY-----";
    takes(&format!("{block}\nafter"), &[&format!("secret:{block}")]);
    leaves("token: ${TOKEN} password: <yours> secret: os.environ max_tokens: 4096");
    leaves("sk-learn-compatible-estimators");
}

#[test]
fn kinds_that_were_not_asked_for_are_not_mistaken_for_others() {
    let text = "from 186.121.97.248 on";
    assert!(findings(text, Kinds::ALL.without(Kind::Ip)).is_empty());
}

mod any_text {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn findings_are_in_order_and_on_characters(
            text in "([0-9+()., -]{0,14}|[a-z@.:/=_-]{0,12}|\\PC{0,6}|card |phone |°|eyJ|sk-|-----BEGIN){0,12}"
        ) {
            let mut last = 0;
            for finding in findings(&text, Kinds::ALL) {
                prop_assert!(finding.start >= last && finding.start < finding.end);
                prop_assert!(text.get(finding.start..finding.end).is_some());
                prop_assert!(finding.score >= ACCEPTED && finding.score <= 100);
                last = finding.end;
            }
        }
    }
}
