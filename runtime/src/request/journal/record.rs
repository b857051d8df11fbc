//! The record of a request: the delivery as it came, so that it can go the same way again.

use crate::client::Client;
use crate::durability::encoding::{Reader, Writer};
use crate::durability::moment::Moment;
use crate::ingress::{Delivery, DeliveryProperties};
use bytes::Bytes;

/// The version of these bytes. Another one is not read.
const VERSION: u8 = 1;

/// What is to be kept of a delivery.
pub struct Draft {
    /// All but the payload.
    pub head: Vec<u8>,
    /// As it came.
    pub payload: Bytes,
}

/// A delivery as an earlier process got it.
#[derive(Debug, PartialEq)]
pub struct Arrived {
    /// Who has published it.
    pub client: Client,
    /// The topic as it stands.
    pub topic: String,
    /// As it came.
    pub payload: Bytes,
    /// MQTT 5 properties.
    pub properties: DeliveryProperties,
    /// When it came first.
    pub moment: Moment,
}

impl Draft {
    /// Of this delivery, which has come now.
    pub fn of(delivery: &Delivery) -> Draft {
        let Delivery { client, topic, payload, properties, .. } = delivery;
        Draft::with(client, topic, payload.clone(), properties, &Moment::now())
    }

    fn with(
        client: &Client,
        topic: &str,
        payload: Bytes,
        properties: &DeliveryProperties,
        moment: &Moment,
    ) -> Draft {
        let mut head = Writer::default();
        head.byte(VERSION);
        moment.encode(&mut head);
        head.optional(client.principal.as_ref().map(|principal| principal.as_bytes()));
        head.text(&client.flow).text(&client.account).byte(u8::from(client.web)).text(topic);
        head.optional(properties.response_topic.as_ref().map(String::as_bytes));
        head.optional(properties.correlation_data.as_deref());
        head.number(properties.user_properties.len() as u64);
        for (name, value) in &properties.user_properties {
            head.text(name).text(value);
        }
        head.number(payload.len() as u64);
        Draft { head: head.finish(), payload }
    }
}

impl Arrived {
    /// From the whole record; `None` where it is none of this version.
    pub fn decode(bytes: Bytes) -> Option<Arrived> {
        let mut reader = Reader::new(bytes);
        let arrived = Arrived::decode_head(&mut reader)?;
        let payload = reader.bytes()?;
        reader.end()?;
        Some(Arrived { payload, ..arrived })
    }

    /// All but the payload.
    pub fn decode_head(reader: &mut Reader) -> Option<Arrived> {
        if reader.byte()? != VERSION {
            return None;
        }
        let moment = Moment::decode(reader)?;
        let client = Client {
            principal: reader.optional_text()?.map(Into::into),
            flow: reader.text()?.into(),
            account: reader.text()?.into(),
            web: reader.byte()? != 0,
        };
        let topic = reader.text()?;
        let response_topic = reader.optional_text()?;
        let correlation_data = reader.optional()?;
        let count = reader.number()?;
        let user_properties =
            (0..count).map(|_| Some((reader.text()?, reader.text()?))).collect::<Option<Vec<_>>>()?;
        let properties = DeliveryProperties { response_topic, correlation_data, user_properties };
        Some(Arrived { client, topic, payload: Bytes::new(), properties, moment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_comes_back_whole_or_not_at_all() {
        let client = Client {
            principal: Some("anna".into()),
            flow: "c".into(),
            account: "user anna".into(),
            web: true,
        };
        let properties = DeliveryProperties {
            response_topic: Some("result/c/1".to_owned()),
            correlation_data: Some(Bytes::from_static(&[1, 2])),
            user_properties: vec![("arg".to_owned(), "5".to_owned()), ("arg".to_owned(), String::new())],
        };
        let plain = Client { principal: None, flow: "".into(), account: "address ::1".into(), web: false };
        for (client, properties) in [(client, properties), (plain, DeliveryProperties::default())] {
            let moment = Moment::now();
            let payload = Bytes::from_static(b"5 7");
            let draft = Draft::with(&client, "localCode/c", payload.clone(), &properties, &moment);
            let bytes = Bytes::from([&draft.head[..], &draft.payload].concat());
            let topic = "localCode/c".to_owned();
            let arrived = Arrived { client, topic, payload, properties, moment };
            assert_eq!(Arrived::decode(bytes.clone()), Some(arrived));
            for end in 0..bytes.len() {
                assert_eq!(Arrived::decode(bytes.slice(..end)), None, "{end}");
            }
            assert_eq!(Arrived::decode([&[VERSION + 1], &bytes[1..]].concat().into()), None);
        }
    }
}
