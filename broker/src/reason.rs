//! Reason codes.

/// Why a packet was refused or a connection closed: the reason codes of MQTT 5 (section 2.4) that this broker
/// sends. What 3.1.1 can say of them is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Reason {
    Success = 0x00,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    SharedSubscriptionsNotSupported = 0x9E,
}

impl Reason {
    /// True for the codes that mean failure (section 2.4).
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// What is said of a packet identifier, known or not.
    pub(crate) fn of_identifier(known: bool) -> Self {
        if known { Self::Success } else { Self::PacketIdentifierNotFound }
    }

    /// True for those that say that credentials are wrong, or do not suffice.
    pub(crate) fn is_failed_log_in(self) -> bool {
        matches!(self, Self::BadUserNameOrPassword | Self::NotAuthorized | Self::BadAuthenticationMethod)
    }

    /// The code as PUBACK and PUBREC may carry it (sections 3.4.2.1 and 3.5.2.1).
    pub(crate) fn in_publish_ack(self) -> Self {
        match self {
            Self::Success
            | Self::NoMatchingSubscribers
            | Self::ImplementationSpecificError
            | Self::NotAuthorized
            | Self::TopicNameInvalid
            | Self::QuotaExceeded
            | Self::PayloadFormatInvalid => self,
            _ => Self::UnspecifiedError,
        }
    }

    /// The code as the server's DISCONNECT may carry it (section 3.14.2.1).
    pub(crate) fn in_disconnect(self) -> Self {
        match self {
            Self::NoMatchingSubscribers
            | Self::NoSubscriptionExisted
            | Self::UnsupportedProtocolVersion
            | Self::ClientIdentifierNotValid
            | Self::BadUserNameOrPassword
            | Self::ServerUnavailable
            | Self::BadAuthenticationMethod
            | Self::PacketIdentifierNotFound => Self::UnspecifiedError,
            _ => self,
        }
    }
}

/// Why the broker or its application does not do what a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told, as far as its version of MQTT has a code for it.
    pub reason: Reason,
    /// Which of the reason's causes it was, for the log: the client may be a stranger, and is not told.
    pub cause: &'static str,
}

impl Refusal {
    /// A refusal with this reason for the client and this cause for the log.
    pub const fn new(reason: Reason, cause: &'static str) -> Self {
        Self { reason, cause }
    }

    /// A refusal because a limit of the configuration is reached.
    pub(crate) const fn quota(cause: &'static str) -> Self {
        Self::new(Reason::QuotaExceeded, cause)
    }
}

/// For an application whose reasons have one cause each.
impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason, "the application refuses it")
    }
}

/// What a client did that ends its connection, and how the log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub reason: Reason,
    pub detail: &'static str,
}

impl Violation {
    pub const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    pub const fn malformed(detail: &'static str) -> Self {
        Self::new(Reason::MalformedPacket, detail)
    }

    pub const fn protocol(detail: &'static str) -> Self {
        Self::new(Reason::ProtocolError, detail)
    }
}
