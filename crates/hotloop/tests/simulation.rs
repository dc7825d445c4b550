//! A chat server, simulated: many seeds, a bad network, and invariants that hold all the same.
//!
//! 30 seeds are run; `HOTLOOP_SEEDS=1000` in the environment runs as many as it says.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hotloop::asyncio::{Error, Protocol, Transport, sleep};
use hotloop::testing::{self, EventLoop, Failed, Faults};

const CLIENTS: u64 = 6;
const NAMES: u64 = 4;
const MESSAGES: u64 = 5;

/// What is told of the members: each with a name.
type Members = RefCell<Vec<(String, Transport)>>;

/// A chat server: a first line with a name, then what its member says, which all are told in one order.
struct Chat {
    event_loop: EventLoop,
    members: Members,
    /// Names of members, and of those who are about to be some.
    taken: RefCell<Vec<String>>,
    said: RefCell<Vec<String>>,
    /// A planted defect: between the look at the names and the entry of a new one, others run.
    hasty: bool,
}

/// One connection of the server.
struct Seat {
    chat: Rc<Chat>,
    lines: Lines,
    /// None before somebody has asked for one.
    name: RefCell<Option<String>>,
    /// What was said before the member was welcome, and None from then on.
    early: RefCell<Option<Vec<String>>>,
}

/// Lines out of pieces.
#[derive(Default)]
struct Lines(RefCell<String>);

impl Lines {
    fn take(&self, data: &[u8]) -> Vec<String> {
        let mut rest = self.0.borrow_mut();
        rest.push_str(&String::from_utf8_lossy(data));
        let mut lines = Vec::new();
        while let Some(end) = rest.find('\n') {
            lines.push(rest.drain(..=end).collect());
        }
        lines
    }
}

fn write(transport: &Transport, line: &str) {
    transport
        .write(line.as_bytes())
        .expect("write_eof was not called");
}

impl Chat {
    fn is_taken(&self, name: &str) -> bool {
        self.taken.borrow().iter().any(|taken| taken == name)
    }

    /// Somebody asks for a name, and somebody else is asked whether it is allowed, which takes a while.
    fn ask(self: &Rc<Self>, seat: &Rc<Seat>, transport: &Transport, name: String) {
        if self.is_taken(&name) {
            write(transport, "taken\n");
            transport.close();
            return;
        }
        if !self.hasty {
            self.taken.borrow_mut().push(name.clone());
        }
        seat.name.replace(Some(name.clone()));
        let (chat, seat, transport) = (Rc::clone(self), Rc::clone(seat), transport.clone());
        let welcome = async move {
            sleep(Duration::from_millis(5)).await?;
            if chat.hasty {
                chat.taken.borrow_mut().push(name.clone());
            }
            if transport.is_closing() {
                chat.free(&name);
            } else {
                write(&transport, "welcome\n");
                chat.members.borrow_mut().push((name, transport));
                let early = seat.early.take();
                early.into_iter().flatten().for_each(|line| chat.say(line));
            }
            Ok::<_, Error>(())
        };
        drop(self.event_loop.create_task(welcome).expect("the loop is open"));
    }

    fn say(&self, line: String) {
        for (_, member) in &*self.members.borrow() {
            write(member, &line);
        }
        self.said.borrow_mut().push(line);
    }

    fn check(&self) {
        let members = self.members.borrow();
        let mut names: Vec<&String> = members.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), members.len(), "two members with one name");
    }

    fn free(&self, name: &str) {
        self.taken.borrow_mut().retain(|taken| taken != name);
    }
}

/// The protocol of a seat, which has to hand itself on.
struct Serving(Rc<Seat>);

impl Protocol for Serving {
    fn data_received(&self, transport: &Transport, data: &[u8]) {
        let Self(seat) = self;
        for line in seat.lines.take(data) {
            if seat.name.borrow().is_none() {
                seat.chat.ask(seat, transport, line);
            } else if let Some(early) = &mut *seat.early.borrow_mut() {
                early.push(line);
            } else {
                seat.chat.say(line);
            }
        }
    }

    fn connection_lost(&self, transport: &Transport, _error: Option<io::Error>) {
        let chat = &self.0.chat;
        let mut members = chat.members.borrow_mut();
        let place = members
            .iter()
            .position(|(_, member)| member.fileno() == transport.fileno());
        if let Some(place) = place {
            let (name, _) = members.remove(place);
            chat.free(&name);
        }
    }
}

/// Somebody who joins, says some lines, listens for a while and leaves.
struct Client {
    number: u64,
    lines: Lines,
    heard: RefCell<Vec<String>>,
    broken: Cell<bool>,
}

struct Listening(Rc<Client>);

impl Protocol for Listening {
    fn data_received(&self, _transport: &Transport, data: &[u8]) {
        let lines = self.0.lines.take(data);
        self.0.heard.borrow_mut().extend(lines);
    }

    fn connection_lost(&self, _transport: &Transport, error: Option<io::Error>) {
        if error.is_some() {
            self.0.broken.set(true);
        }
    }
}

impl Client {
    async fn live(self: Rc<Self>, event_loop: EventLoop) -> Result<(), Error> {
        let pause = |most: u64| sleep(Duration::from_micros(event_loop.draw(0..most)));
        pause(500_000).await?;
        let listening = || Rc::new(Listening(Rc::clone(&self)));
        let connected = event_loop
            .create_connection(listening, "chat.example", 7000)
            .await;
        let Ok((transport, _)) = connected else {
            self.broken.set(true);
            return Ok(());
        };
        write(&transport, &format!("member {}\n", self.number % NAMES));
        for message in 0..MESSAGES {
            pause(1_000_000).await?;
            write(&transport, &format!("{message} of {}\n", self.number));
        }
        // Hours of silence cost nothing.
        sleep(Duration::from_secs(3600)).await?;
        transport.close();
        Ok(())
    }

    /// What a client hears is a section of what was said, without gap, doubling or change of order.
    fn check(&self, said: &[String]) {
        let heard = self.heard.borrow();
        let Some((first, heard)) = heard.split_first().filter(|(first, _)| *first != "taken\n") else {
            assert!(heard.len() < 2, "who is not a member hears nothing: {heard:?}");
            return;
        };
        assert_eq!(first, "welcome\n");
        if let Some(begin) = heard.first() {
            let begin = said.iter().position(|line| line == begin).expect("it was said");
            assert_eq!(heard, &said[begin..begin + heard.len()]);
        }
        if !self.broken.get() {
            let ending = format!(" of {}\n", self.number);
            let own = heard.iter().filter(|line| line.ends_with(&ending)).count();
            assert_eq!(
                own as u64, MESSAGES,
                "somebody whose connection held was not heard"
            );
        }
    }
}

async fn chat(event_loop: EventLoop, hasty: bool) -> Result<Vec<String>, Error> {
    let chat = Rc::new(Chat {
        event_loop: event_loop.clone(),
        members: RefCell::default(),
        taken: RefCell::default(),
        said: RefCell::default(),
        hasty,
    });
    let serving = Rc::clone(&chat);
    let seat = move || {
        Rc::new(Serving(Rc::new(Seat {
            chat: Rc::clone(&serving),
            lines: Lines::default(),
            name: RefCell::default(),
            early: RefCell::new(Some(Vec::new())),
        })))
    };
    let server = event_loop.create_server(seat, "chat.example", 7000).await?;
    let mut clients = Vec::new();
    let mut lives = Vec::new();
    for number in 0..CLIENTS {
        let client = Rc::new(Client {
            number,
            lines: Lines::default(),
            heard: RefCell::default(),
            broken: Cell::new(false),
        });
        lives.push(event_loop.create_task(Rc::clone(&client).live(event_loop.clone()))?);
        clients.push(client);
    }
    while event_loop.time() < 3.0 {
        chat.check();
        sleep(Duration::from_millis(10)).await?;
    }
    for life in lives {
        life.await??;
    }
    server.close();
    server.wait_closed().await?;
    // What is still under way arrives, and every connection comes to its end.
    sleep(Duration::from_secs(100)).await?;
    assert_eq!(event_loop.connections(), 0);
    assert!(chat.members.borrow().is_empty() && chat.taken.borrow().is_empty());
    let said = chat.said.take();
    for client in clients {
        client.check(&said);
    }
    Ok(said)
}

fn faults() -> Faults {
    Faults {
        delay: (Duration::ZERO, Duration::from_millis(50)),
        loss: 0.05,
        reset: 0.01,
        refuse: 0.05,
        split: 20,
    }
}

#[test]
fn a_chat_keeps_its_promises_on_a_bad_network() -> Result<(), Failed> {
    let seeds = std::env::var("HOTLOOP_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(30);
    testing::simulate(0..seeds, &faults(), |event_loop| async move {
        chat(event_loop, false).await.map(drop)
    })
}

#[test]
fn a_planted_defect_is_found_and_its_seed_finds_it_again() {
    let hasty = |seeds| {
        let failed = testing::simulate(seeds, &faults(), |event_loop| async move {
            chat(event_loop, true).await.map(drop)
        });
        failed.expect_err("a defect was planted")
    };
    let found = hasty(0..200);
    assert!(found.to_string().contains("two members with one name"), "{found}");
    for _ in 0..2 {
        assert_eq!(hasty(found.seed..found.seed + 1).to_string(), found.to_string());
    }
}

#[test]
fn one_seed_is_one_history() {
    let history = |seed| {
        let history = Rc::new(RefCell::default());
        let noted = Rc::clone(&history);
        let ran = testing::simulate([seed], &faults(), move |event_loop| {
            let noted = Rc::clone(&noted);
            async move {
                let said = chat(event_loop.clone(), false).await?;
                noted.replace((said, event_loop.time()));
                Ok::<_, Error>(())
            }
        });
        ran.expect("the promises are kept");
        history.take()
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
    assert!(!history(1).0.is_empty());
}
