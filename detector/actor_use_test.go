package detector

import (
	"errors"
	"testing"
)

// An act ends with the account that it began with, the next one has the new one. What can not be used changes nothing.
func TestAnotherAccountIsUsedFromTheNextActOn(t *testing.T) {
	t.Parallel()
	f := fakeMySQL(t, func(string) reply { return one(map[string]string{"id": "1"}) })
	account := func(user string) Account {
		return Account{Address: f.address(), User: user, ReplicationUser: user + "'s replica"}
	}
	a, err := NewActor(ActorConfig{Account: account("old"), Clock: bootClock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.work.drop(); a.giveUp.drop() })
	act := func(during func(), replica, loggedIn string) {
		t.Helper()
		err := a.with(t.Context(), a.work, func(l *line) error {
			during()
			_, err := l.query(t.Context(), statementWait, "SELECT 1")
			if l.as.ReplicationUser != replica {
				t.Errorf("the account at the source is %q, want %q", l.as.ReplicationUser, replica)
			}
			return err
		})
		if err != nil || f.loggedIn() != loggedIn {
			t.Errorf("logged in as %q, want %q: %v", f.loggedIn(), loggedIn, err)
		}
	}
	act(func() {
		if err := a.Use(account("new")); err != nil {
			t.Error(err)
		}
	}, "old's replica", "old")
	act(func() {}, "new's replica", "old new")
	if err := a.Use(account("")); !errors.Is(err, ErrConfig) {
		t.Errorf("an account without a name: %v", err)
	}
	if err := a.Use(Account{Address: "nowhere", User: "new"}); !errors.Is(err, ErrConfig) {
		t.Errorf("an address that is none: %v", err)
	}
	act(func() {}, "new's replica", "old new")
	if err := a.MayEndSessions(t.Context()); !errors.Is(err, ErrMayNotEnd) || f.loggedIn() != "old new new" {
		t.Errorf("a connection of its own: %v, logged in as %q", err, f.loggedIn())
	}
}
