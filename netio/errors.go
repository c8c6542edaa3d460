package netio

import "errors"

// Errors that a caller may want to tell apart with errors.Is. They are wrapped in what was tried and on what.
var (
	// ErrLate means that a claim was dropped or taken back because its time was over, or because its epoch was unbound in
	// the meantime.
	ErrLate = errors.New("the claim came too late")
	// ErrAbsent means that Extend found an address that is not bound. It was not added.
	ErrAbsent = errors.New("the address is not bound")
	// ErrPermission means that the kernel refuses us the operation. It will not go away by trying again.
	ErrPermission = errors.New("permission denied: give the process CAP_NET_ADMIN and CAP_NET_RAW")
	// ErrNoInterface means that there is no interface of that name.
	ErrNoInterface = errors.New("no such interface: check the group's or the node's interface setting")
	// ErrLinkDown means that the interface is switched off or has no carrier.
	ErrLinkDown = errors.New("the link is down")
	// ErrStillBound means that an address was read back as bound although it was to be removed.
	ErrStillBound = errors.New("the address is still bound")
)
