/* Queue, doorbell, slot, claim and EOM, for spin. synic_model_test.sh runs it, and again with each MUTATE_*, which must fail.
 *
 * Two producers: one by the doorbell and a kick, one that delivers itself (exit-less) and falls back to the
 * doorbell. One virtual processor's thread, which sleeps unless it is kicked, as it does in the guest; one guest.
 * Each step is one access to shared memory. All accesses that race are seq_cst or read-modify-writes of one word in the code,
 * so that interleavings are all that can happen; the plain accesses belong to one owner, which the model asserts.
 *
 * Safety: every message once, in order per producer, never two writers of the slot, and when nothing can move any more, all
 * have arrived: a lost wake-up ends in that assertion. Progress: no cycle without a message posted or read (-DNP). */

#ifndef KICKED
#define KICKED 2     /* messages of the producer that kicks */
#define DELIVERED 1  /* of the one that delivers */
#endif
#define ALL (KICKED + DELIVERED)
#define NONE 0
#define ASLEEP 2  /* the doorbell: 0, 1 the source's bit, 2 asleep */
#define FREE 0
#define HELD 1
#define AGAIN 2

/* Slot m of the queue holds message m: first those of the kicker, then those of the deliverer. No slot is used twice: a slot
 * is its producer's again only when it is free, which no step here can change. */
byte newest = 0;
byte link[ALL + 1];
bool linked[ALL + 1];

byte bell = 0;
bool kicked = false;  /* a kick that the VP's thread has not taken: several are one */
bool granted = false;  /* since the last Arm: nobody but the watcher reads it */
byte claim = FREE;
byte writers = 0;

/* The consumer's own state, of who has the claim. */
byte taken[ALL + 1];
byte takenCount = 0;

/* The guest's slot. */
byte slotType = NONE;
bool slotPending = false;
byte interrupts = 0;
bool eom = false;

/* What came. */
byte arrived[2];
byte posters = 2;

inline Publish(m, top) {
  do
  :: top = newest;
     /* Our own slot: with the access that follows. */
     atomic {
       link[m] = top;
       if
#ifdef MUTATE_PUBLISH_WITHOUT_CAS
       :: true ->
#else
       :: newest == top ->
#endif
          newest = m; linked[m] = true; top = 0; break
       :: else -> top = 0
       fi
     }
  od
}

inline Ring(word, kick) {
  kick = false;
  do
  :: word = bell;
     if
     :: word == 1 -> break
     :: else ->
        atomic {
          if
#ifdef MUTATE_RING_WITHOUT_CAS
          :: true ->
#else
          :: bell == word ->
#endif
             bell = 1; kick = (word == ASLEEP);
             if :: kick -> assert(!granted); granted = true :: else -> skip fi;
             break
          :: else -> skip
          fi
        }
     fi
  od;
  atomic {
    if :: kick -> kicked = true :: else -> skip fi;
    kick = false; word = 0
  }
}

/* MessageSlot::Look. What only the claim holder touches goes with the access before it. `wrote` stays set once set: the
 * interrupt is raised on leaving. */
inline Look(m, wrote) {
  atomic {
    writers++;
    assert(writers == 1);
    /* Front: the list is taken when nothing taken is left; walking it touches only what is ours now. */
    if
    :: takenCount == 0 ->
       m = newest; newest = 0;
       do
       :: m != 0 -> taken[takenCount] = m; takenCount++; assert(linked[m]); linked[m] = false; m = link[m]
       :: else -> break
       od
    :: else -> skip
    fi;
    if :: takenCount == 0 -> goto looked :: else -> skip fi
  };
  atomic { if :: slotType == NONE -> goto write :: else -> skip fi };
  slotPending = true;
#ifdef MUTATE_NO_SECOND_LOOK_AT_TYPE
  goto looked;
#else
  atomic { if :: slotType != NONE -> goto looked :: else -> skip fi };
#endif
write:
  /* The flag, then the type. */
#ifdef MUTATE_TYPE_BEFORE_FLAG
  slotType = taken[takenCount - 1];
  atomic { slotPending = (takenCount > 1 || newest != 0); takenCount--; taken[takenCount] = 0; wrote = true };
#else
  slotPending = (takenCount > 1 || newest != 0);
  atomic {
    assert(slotType == NONE);
    slotType = taken[takenCount - 1]; takenCount--; taken[takenCount] = 0; wrote = true
  };
#endif
looked: skip
}

/* MessageSlot::TryDeliver, with two looks. */
inline TryDeliver(m, wrote, looks, again) {
  /* Enter. Reading AGAIN is one access; taking or marking is one compare-and-swap. */
  atomic {
    if
#ifdef MUTATE_NO_CLAIM
    :: true -> claim = HELD
#else
    :: claim == FREE -> claim = HELD
#endif
#ifdef MUTATE_NO_MARK
    :: else -> goto done
#else
    :: else -> claim = AGAIN; goto done
#endif
    fi
  };
  do
  :: Look(m, wrote);
     /* Leave, or take the mark away and look again; the last time, leave whatever is marked. */
     atomic {
       looks++; writers--; m = 0;
       if
       :: claim == HELD -> claim = FREE; break
       :: claim != HELD && looks == 2 ->
          claim = FREE;
#ifndef MUTATE_NO_LOOK_AGAIN
          again = true;
#endif
          break
       :: else -> skip
       fi
     };
     claim = HELD
  od;
  atomic {
    if :: wrote && interrupts == 0 -> interrupts = 1 :: else -> skip fi;
    wrote = false; looks = 0
  };
done: skip
}

/* By the doorbell: a timer on the event loop, say. */
proctype Kicker() {
  byte n, top, word;
  bool kick;
  for (n : 1 .. KICKED) {
    Publish(n, top);
progress_post: skip;
    Ring(word, kick)
  }
  posters--
}

/* Exit-less. */
proctype Deliverer() {
  byte n, top, word, m, looks;
  bool kick, wrote, again;
  for (n : KICKED + 1 .. ALL) {
    Publish(n, top);
progress_post: skip;
    TryDeliver(m, wrote, looks, again);
    if :: again -> again = false; Ring(word, kick) :: else -> skip fi
  }
  posters--
}

/* The VP's thread: take the bell, look, arm, enter the guest. It leaves the guest for a kick, and for an EOM. */
proctype Vp() {
  byte m, looks, word;
  bool wrote, again, kick;
  do
  :: bell = 0;
     TryDeliver(m, wrote, looks, again);
     if :: again -> again = false; Ring(word, kick) :: else -> skip fi;
#ifdef MUTATE_ARM_WITHOUT_CAS
     word = bell;
     if :: word == 0 -> bell = ASLEEP; granted = false :: else -> skip fi;
     if :: word == 0 ->
#else
     atomic { if :: bell == 0 -> bell = ASLEEP; granted = false; word = ASLEEP :: else -> word = 1 fi };
     if :: word == ASLEEP ->
#endif
        word = 0;
end_in_guest:
        atomic { if :: kicked -> kicked = false :: eom -> eom = false fi }
     :: else -> word = 0
     fi
  od
}

proctype Guest() {
  byte m;
end:
  do
  :: interrupts > 0 ->
     interrupts = 0;
     do
     :: m = slotType;
        if :: m == NONE -> break :: else -> skip fi;
progress_read:
        atomic {
          /* Once, and in order. */
          if
          :: m <= KICKED -> arrived[0]++; assert(m == arrived[0])
          :: else -> arrived[1]++; assert(m == KICKED + arrived[1])
          fi;
          m = 0
        };
        slotType = NONE;
        /* The barrier. EOM: an exit to the VP's thread. */
        if :: slotPending -> eom = true :: else -> skip fi;
        /* A handler reads once an interrupt, or until the slot is empty: both occur. */
        if :: break :: skip fi
     od
  od
}

/* Nothing can move, and not all arrived: somebody waits for a wake-up that nobody will give. */
proctype Watch() {
  timeout;
  assert(posters == 0);
  assert(arrived[0] == KICKED && arrived[1] == DELIVERED)
}

init {
  atomic { run Kicker(); run Deliverer(); run Vp(); run Guest(); run Watch() }
}
